-- Files items, each once, and tells of them; one record tells of many addresses, but of each once.
--
-- ARGV: for each item address, id, the id's number, when it expires (microseconds since 1970), payload;
--       an item without an address is a gap: something is missing for good, to whoever follows.
-- Returns {filed, known before, expired before, Redis's time in microseconds}.
local now_us = clock_us()
local filed, known, late = 0, 0, 0
local records, letters, told, bytes = {}, {}, {}, 0

local function close()
  if bytes > 0 then
    records[#records + 1] = {seq, time_us, pack_record(epoch, seq, time_us, prev_us, table.concat(letters))}
    letters, told, bytes = {}, {}, 0
  end
end

local function tell(kind, address, unread, id, payload)
  local head = letter(kind, address, unread, id, payload)
  -- Two parts: text that is put together twice is copied twice.
  letters[#letters + 1] = head
  letters[#letters + 1] = payload
  told[address] = true
  bytes = bytes + #head + #payload
end

-- Where the next letter to an address goes: the record that is being made, or another.
local function open(address)
  if told[address] or bytes >= 262144 then
    close()
  end
  if bytes == 0 then
    begin_record(now_us)
  end
end

-- Whether an id was filed before; it is noted that it is.
local function is_known(number)
  local filled = ids_key(box.address, box.set)
  if now_us - box.set_us >= KNOWN_US and (box.set_us == 0 or call('SCARD', filled) >= IDS_A_SET) then
    if box.set_us ~= 0 then
      box.set = box.set + 1
      filled = ids_key(box.address, box.set)
    end
    box.set_us = now_us
    call('DEL', filled)
    box.made_a_key = true
  end
  if box.set > 0 and call('SISMEMBER', ids_key(box.address, box.set - 1), number) == 1 then
    return true
  end
  return call('SADD', filled, number) == 0
end

local function file(id, expires_us, payload)
  local name = base .. ':box:' .. box.address
  expire(now_us)
  if expires_us > now_us + KEEP_US then
    expires_us = now_us + KEEP_US
  end
  local item = pack(ITEM, seq, time_us, expires_us, #id) .. id .. payload
  local items = call('RPUSH', name, item)
  if (items > 1) ~= (box.bytes > 0) then
    call('RPOP', name)
    expire(now_us, items - 1)
    items = call('RPUSH', name, item)
  end
  if box.mark_seq > 0 then
    -- It was deleted once, so long ago that its id is not known any more.
    call('HDEL', key('marks', box.address), id)
  end
  box.bytes = box.bytes + #item
  box.unread = box.unread + 1
  if box.next_us == 0 or expires_us < box.next_us then
    box.next_us = expires_us
  end
  while items > 1 and (items > KEEP_ITEMS or box.bytes > KEEP_BYTES) do
    local cut_seq, cut_us = forget(call('LPOP', name))
    box.cut_seq, box.cut_us = math.max(box.cut_seq, cut_seq), math.max(box.cut_us, cut_us)
    items = items - 1
  end
  box.made_a_key = box.made_a_key or items == 1
  save(now_us)
end

for at = 9, #ARGV, 5 do
  local address, id, number, expires_us, payload =
    ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 4]
  if address == '' then
    open(address)
    call('HSET', head, 'gap_seq', string.format('%d', seq), 'gap_us', string.format('%d', time_us))
    tell(GAP, '', 0, '', payload)
  elseif expires_us <= now_us then
    late = late + 1
  else
    load(address)
    if is_known(number) then
      known = known + 1
    else
      open(address)
      file(id, expires_us, payload)
      tell(FILED, address, box.unread, id, payload)
      filed = filed + 1
    end
  end
end
close()
if #records > 0 then
  write_records(records)
end
return {filed, known, late, now_us}
