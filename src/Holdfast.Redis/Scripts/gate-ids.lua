-- Notes ids that the store knows or may come to know, and tells of others whether they may be known.
--
-- Arguments: 1 what to do: 'mark', 'ask'; 2 epoch; 3 number of the listing that ends with these (0: none does);
-- then the places of ids.
-- Answer: for 'mark' 1, 0 when the gate is closed, -1 when the epoch is another; for 'ask' 0 or 1 for each id, or an
-- empty list when the gate is closed, has lost them or not all of them yet, or when some may have gone around it.

local gate = open('listing', 'last', 'ids', 'sure')
if ARGV[1] == 'ask' then
  local known = {}
  if gate and gate[5] == '1' and now() < tonumber(gate[6]) and redis.pcall('GETBIT', IDS, gate[4]) == 1 then
    for i = 4, #ARGV do
      known[#known + 1] = isMarked(ARGV[i]) and 1 or 0
    end
  end
  return known
end

if not gate then
  return 0
end
if gate[2] ~= ARGV[2] then
  return -1
end
for i = 4, #ARGV do
  mark(ARGV[i])
end
if ARGV[3] ~= '0' and ARGV[3] == gate[3] then
  redis.call('HSET', GATE, 'ids', 1)
end
return 1
