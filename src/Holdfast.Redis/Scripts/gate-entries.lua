-- Reads entries from the head of the stream.
--
-- Arguments: 1 epoch; 2 how many; 3 after which entry ('-': from the first).
-- Answer: nothing when the gate does not sell; otherwise the last settled entry, and the entries.

local gate = selling(ARGV[1], 'done')
if not gate then
  return {}
end
return { gate[6], redis.call('XRANGE', STREAM, ARGV[3], '+', 'COUNT', ARGV[2]) }
