-- A process says that it is there, begins an epoch where the gate is closed, and learns how things stand.
--
-- Arguments: 1 process; 2 until when it is sure to be heard (0: it is there, but nobody may rely on having heard it;
-- -1: it leaves); 3 epoch of its oldest command under way (0: none); 4 after how many ms a process that is not
-- heard is forgotten; 5 highest epoch that it knows of; 6 cursor for an epoch that has to be begun; 7 1: wants to follow the
-- ledger; 8 for how many ms; 9 1: what was written lately may be missing in the copies, 2: and its ids too, 3: the gate is another store's, and has to be begun anew; 10 how many ms an epoch waits for processes to come
-- forward; 11 the place behind the bits of ids; 12 'store' or 'gate': who
-- acknowledges (where the gate does, an epoch is begun by gate-begin.lua, and this one finds the gate closed until then); from 13 on:
-- the processes that it knows of.
-- Answer: epoch (0: closed), 1 when it was begun now, time, fresh, ids, listing, cursor, 1 when nothing of an older epoch is under
-- way, 1 when the caller is the one that follows, sure, operation and time of the last entry followed, the processes.

for _, key in ipairs({ GATE, NODES }) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then
    redis.call('DEL', key)
  end
end
local kind = redis.call('TYPE', IDS).ok
if kind ~= 'string' and kind ~= 'none' then
  redis.call('DEL', IDS)
end

local time, server, node = now(), run(), ARGV[1]
local gate = redis.call('HMGET', GATE, 'run', 'epoch', 'last', 'ack', 'entries')
local begun = 0
if gate[1] == server and gate[3] ~= ARGV[11] then
  return redis.error_reply('GATE the processes of one gate must have the same IdBits')
end
local isOther = (gate[4] or 'store') ~= ARGV[12]
if gate[1] == server and isOther then
  if tonumber(gate[5] or '0') > 0 then
    return redis.error_reply('GATE it holds commands that it had acknowledged: start a process with Acknowledge=Gate, which takes them to the store')
  end
  local all = redis.call('HGETALL', NODES)
  for i = 1, #all, 2 do
    if all[i] ~= node and (tonumber(string.match(all[i + 1], '^(%d+):')) or 0) > time then
      return redis.error_reply('GATE the processes of one gate must have the same Acknowledge')
    end
  end
end
if gate[1] ~= server or isOther or ARGV[9] == '3' or redis.call('GETBIT', IDS, ARGV[11]) == 0 then
  if ARGV[2] == '-1' then
    return {}
  end
  if ARGV[12] == 'gate' then
    return { '0', 0, text(time), '0', '0', '0', '', 0, 0, '0', '', '', {} }
  end
  local epoch = text(math.max(time, tonumber(ARGV[5]) + 1, (tonumber(gate[2] or '0') or 0) + 1))
  redis.call('DEL', GATE)
  redis.call('HSET', GATE, 'run', server, 'epoch', epoch, 'born', time, 'sure', 0, 'fresh', 0, 'cursor', ARGV[6], 'ids', 0, 'listing', 1, 'last', ARGV[11])
  redis.call('SETBIT', IDS, ARGV[11], 1)
  gate = { server, epoch }
  begun = 1
  for i = 13, #ARGV do
    redis.call('HSETNX', NODES, ARGV[i], text(time) .. ':0')
  end
end

local epoch = gate[2]
if ARGV[2] == '-1' then
  redis.call('HDEL', NODES, node)
else
  local untilTime = ARGV[2] == '0' and text(time) or ARGV[2]
  redis.call('HSET', NODES, node, untilTime .. ':' .. (ARGV[3] == '0' and epoch or ARGV[3]))
end

-- Everybody's state.
local sure, settled, names = nil, 1, {}
local all = redis.call('HGETALL', NODES)
for i = 1, #all, 2 do
  local heard, oldest = string.match(all[i + 1], '^(%d+):(%d+)$')
  heard, oldest = tonumber(heard or '0'), tonumber(oldest or '0')
  if heard + tonumber(ARGV[4]) < time then
    redis.call('HDEL', NODES, all[i])
  else
    names[#names + 1] = all[i]
    sure = math.min(sure or heard, heard)
    if oldest < tonumber(epoch) then
      settled = 0
    end
  end
end
sure = sure and sure > time and sure or 0
redis.call('HSET', GATE, 'sure', text(sure))

-- What is under way since an older epoch may come in behind a listing of ids.
local state = redis.call('HMGET', GATE, 'born', 'fresh', 'ids', 'listing', 'cursor', 'lead', 'leadUntil', 'lastId', 'lastAt')
if ARGV[9] == '1' or ARGV[9] == '2' then
  state[2] = '0'
  redis.call('HSET', GATE, 'fresh', 0, 'since', text(time))
end
if ARGV[9] == '2' or (state[3] == '1' and settled == 0) then
  state[3] = '0'
  state[4] = text(tonumber(state[4]) + 1)
  redis.call('HSET', GATE, 'ids', 0, 'listing', state[4])
end
if tonumber(state[1]) + tonumber(ARGV[10]) > time then
  settled = 0
end

local leads = 0
if ARGV[7] == '1' and (not state[6] or state[6] == node or tonumber(state[7]) < time) then
  redis.call('HSET', GATE, 'lead', node, 'leadUntil', text(time + tonumber(ARGV[8])))
  leads = 1
elseif state[6] == node then
  redis.call('HDEL', GATE, 'lead', 'leadUntil')
end
return { epoch, begun, text(time), state[2], state[3], state[4], state[5], settled, leads, text(sure), state[8] or '', state[9] or '', names }
