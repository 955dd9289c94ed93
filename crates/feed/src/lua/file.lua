-- Files items, each once, and publishes records about them. Follows mailbox.lua.
--
-- A record holds letters to many addresses, but at most one to each.
--
-- ARGV: for each item: address, id, the hash of the id, when it expires (microseconds since 1970), payload. An item
--       without an address is a gap: something is missing for good, for all followers. Its payload says why.
-- Returns {filed, filed before, expired before, Redis's time in microseconds}.
local ARGS_PER_ITEM = 5
-- A record that has this many bytes gets no further letter.
local RECORD_BYTES = 262144

local now_us = clock_us()
local filed, known, expired = 0, 0, 0
local records, letters, addressed, bytes = {}, {}, {}, 0

-- Ends the record that is being made.
local function close()
  if bytes > 0 then
    records[#records + 1] = {seq, time_us, pack_record(epoch, seq, time_us, prev_us, table.concat(letters))}
    letters, addressed, bytes = {}, {}, 0
  end
end

-- Adds a letter to the record that is being made.
local function add_letter(kind, address, unread, id, payload)
  local start = letter(kind, address, unread, id, payload)
  -- Letter and payload stay apart: joining them here would copy them twice.
  letters[#letters + 1] = start
  letters[#letters + 1] = payload
  addressed[address] = true
  bytes = bytes + #start + #payload
end

-- Sees to a record that can take a letter to an address: the one that is being made, or a new one.
local function open(address)
  if addressed[address] or bytes >= RECORD_BYTES then
    close()
  end
  if bytes == 0 then
    begin_record(now_us)
  end
end

-- Returns whether an id was filed before, and notes that it is filed now.
local function is_known(id_hash)
  local filling = ids_key(box.address, box.set)
  if now_us - box.set_us >= KNOWN_US and (box.set_us == 0 or call('SCARD', filling) >= IDS_PER_SET) then
    if box.set_us ~= 0 then
      box.set = box.set + 1
      filling = ids_key(box.address, box.set)
    end
    box.set_us = now_us
    call('DEL', filling)
    box.made_a_key = true
  end
  if box.set > 0 and call('SISMEMBER', ids_key(box.address, box.set - 1), id_hash) == 1 then
    return true
  end
  return call('SADD', filling, id_hash) == 0
end

-- Adds an item to the mailbox in hand, and cuts off the oldest items above its limits.
local function file(id, expires_us, payload)
  local name = key('box', box.address)
  expire(now_us)
  if expires_us > now_us + KEEP_US then
    expires_us = now_us + KEEP_US
  end
  local item = pack(ITEM, seq, time_us, expires_us, #id) .. id .. payload
  local items = call('RPUSH', name, item)
  if (items > 1) ~= (box.bytes > 0) then
    -- Redis has lost the list or its count.
    call('RPOP', name)
    expire(now_us, items - 1)
    items = call('RPUSH', name, item)
  end
  if box.mark_seq > 0 then
    -- A mark that is there dates from an item that was deleted so long ago that its id is not known any more.
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

for at = FIRST_ARG, #ARGV, ARGS_PER_ITEM do
  local address, id, id_hash, expires_us, payload =
    ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 4]
  if address == '' then
    open(address)
    call('HSET', head, 'gap_seq', string.format('%d', seq), 'gap_us', string.format('%d', time_us))
    add_letter(GAP, '', 0, '', payload)
  elseif expires_us <= now_us then
    expired = expired + 1
  else
    load(address)
    if is_known(id_hash) then
      known = known + 1
    else
      open(address)
      file(id, expires_us, payload)
      add_letter(FILED, address, box.unread, id, payload)
      filed = filed + 1
    end
  end
end
close()
if #records > 0 then
  write_records(records)
end
return {filed, known, expired, now_us}
