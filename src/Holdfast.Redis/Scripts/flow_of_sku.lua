-- Reads the ledger of one SKU. Arguments 5: the SKU; 6: go on after this version; 7: up to this version, 0 for the latest;
-- 8: most entries. Answers: now(6) end(6) latest version(6) count(2), then for each entry
-- kind(1) flags(1) time(6) id(1+) units(6) available(7) reserved(7) version(6).

return run(function()
  local now, stop = begin()
  local sku, after, upTo, most = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
  local row = ask('HGET', STOCK, sku)
  if not row then
    return pack('<I6I6I6I2', now, stop, 0, 0)
  end
  local _, _, _, _, _, latest = unstruct('<dddddd', row)
  if upTo == 0 or upTo > latest then
    upTo = latest
  end
  local out = {}
  local index, indexPart
  for version = after + 1, min(upTo, after + most) do
    local place = version - 1
    if indexPart ~= floor(place / INDEXED) then
      indexPart = floor(place / INDEXED)
      local first = place % INDEXED
      local count = min(INDEXED - first, min(upTo, after + most) - place)
      index = { at = place, bytes = ask('GETRANGE', indexKey(sku, indexPart), first * 6, (first + count) * 6 - 1) }
    end
    local at = (place - index.at) * 6 + 1
    if #index.bytes < at + 5 then
      fail('DAMAGED the ledger of ' .. sku .. ' is cut off (key ' .. indexKey(sku, indexPart) .. ')')
    end
    local position = unstruct('<I6', index.bytes, at)
    local key, offset = partKey(floor(position / PART)), position % PART
    local line = ask('GETRANGE', key, offset, offset + 221)
    local back, name, units, available, reserved, number = unstruct('<I3Bc0i6I7I7I6', line)
    if name ~= sku or number ~= version then
      fail('DAMAGED the ledger of ' .. sku .. ' has another entry in the place of version ' .. string.format('%.0f', version) .. ' (key ' .. indexKey(sku, indexPart) .. ')')
    end
    local _, kind, flags, time, id = unstruct('<I4BBI6Bc0', ask('GETRANGE', key, offset - back, offset - back + 204))
    out[#out + 1] = pack('<BBI6Bc0i6I7I7I6', kind, flags, time, #id, id, units, available, reserved, number)
  end
  return pack('<I6I6I6I2', now, stop, latest, #out) .. concat(out)
end)
