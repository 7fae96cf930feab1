-- Looks for copies, whatever the store knows: some of the server's keys at a time.
--
-- Arguments: 1 where to go on ('0': at the beginning); 2 about how many keys to look at.
-- Answer: where to go on ('0': that was the end), then SKUs of which there is a copy; one may come more than once.

local page = redis.call('SCAN', ARGV[1], 'MATCH', SKU .. '*', 'COUNT', ARGV[2])
local answers = { page[1] }
for _, key in ipairs(page[2]) do
  answers[#answers + 1] = string.sub(key, #SKU + 1)
end
return answers
