-- Reads the journal. Arguments 5: the position to begin at; 6: where the caller stops; 7: about how many bytes.
-- Answers: now(6) end(6) next(6), then whole records; none where a part ends, and then next is the beginning of the next.

return run(function()
  local now, stop = begin()
  local position, bound, bytes = tonumber(ARGV[5]), min(tonumber(ARGV[6]), stop), tonumber(ARGV[7])
  if position >= bound then
    return pack('<I6I6I6', now, stop, position)
  end
  local part, offset = floor(position / PART), position % PART
  local last = offset + bytes - 1
  if part == floor(bound / PART) then
    last = min(last, bound % PART - 1)
  end
  local slice = ask('GETRANGE', partKey(part), offset, last)
  local at = 1
  while at + 3 <= #slice do
    local size = unstruct('<I4', slice, at)
    if size == 0 or at + size - 1 > #slice then
      break
    end
    at = at + size
  end
  if at == 1 then
    if #slice < 4 or unstruct('<I4', slice) == 0 then
      if part == floor(bound / PART) then
        fail('DAMAGED the journal has no record at ' .. string.format('%.0f', position) .. ' (key ' .. partKey(part) .. ')')
      end
      return pack('<I6I6I6', now, stop, (part + 1) * PART)
    end
    local record = readRecord(position)
    return pack('<I6I6I6', now, stop, position + #record) .. record
  end
  return pack('<I6I6I6', now, stop, position + at - 1) .. sub(slice, 1, at - 1)
end)
