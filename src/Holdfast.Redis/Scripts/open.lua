-- Opens a store: makes it where nothing is there. Arguments 1: an identity for a new store, '' to make none; 2: the
-- format's version. Answers the identity, and '1' or '0' for whether it was made now; nothing where there is none.
-- The one script that knows no identity yet, so it does not begin as the others do.

local META = KEYS[1]
local type = redis.call('TYPE', META).ok
if type ~= 'none' and type ~= 'hash' then
  return redis.error_reply('WRONGTYPE the key ' .. META .. ' holds something else than a store: it is a ' .. type)
end
local found = redis.call('HMGET', META, 'identity', 'format')
if found[1] then
  if found[2] ~= ARGV[2] then
    return redis.error_reply('FORMAT the store at ' .. META .. ' has the format ' .. tostring(found[2]) .. '; this version knows ' .. ARGV[2])
  end
  return { found[1], '0' }
end
if ARGV[1] == '' then
  return {}
end
redis.call('HSET', META, 'identity', ARGV[1], 'format', ARGV[2], 't', '0', 'end', '0')
return { ARGV[1], '1' }
