-- Shared by all scripts of mailboxes; follows record.lua. A mailbox has an address, and is told of in
-- a feed that it shares with others; all its keys have the feed's hash tag. mailbox.rs reads the same
-- layouts.
--
-- KEYS: log, head, and one that never is (script.rs says why)
-- ARGV: base (the channel's name, which all keys begin with), nonce, what the log keeps (max_entries,
--       max_age_us, max_bytes), what a mailbox keeps (items, bytes, microseconds), and what the
--       script says.
--
-- Keys: base:box:A    a list of items, oldest first, laid out as ITEM says, then the id, then the payload.
--       base:marks:A  a hash, id to MARK: what was read, and what was deleted, for who has not heard of it.
--       base:ids:A:N  two sets of numbers of ids that were filed; one is filled, then the other.
--       base:state:A  as STATE says.
local log, head, base, nonce = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local KEEP_ITEMS, KEEP_BYTES, KEEP_US = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

-- Of an item: the number and time of its record, when it expires, and the length of its id.
local ITEM = '>I8I8I8I2'
local ITEM_BYTES = 26
-- Of a mark: what it is, and the number and time of its record.
local MARK = '>BI8I8'
-- Of a mailbox: how many items are unread, bytes of all; the place up to which something was cut off;
-- the place of the last mark; when the next item expires; which set of ids is being filled, and since
-- when; the day on which keys were last told to live on; when it was found that Redis had lost items.
local STATE = '>I4I4I8I8I8I8I8I4I8I4I8'
local STATE_BYTES = 72

-- What a letter in a record says: an item was filed, items were read, one was deleted; or, without an
-- address: something is missing for good.
local FILED, READ, DELETED, GAP = 1, 2, 3, 4

-- An id is known for so long, and as long as its item is there: a set has many more ids than a
-- mailbox has items.
local KNOWN_US = 86400000000
local IDS_A_SET = math.max(512, 2 * KEEP_ITEMS)
local DAY_US = 86400000000

local function key(kind, address)
  return base .. ':' .. kind .. ':' .. address
end

-- The feed's last record, or the one that is being made.
local held = call('HMGET', head, 'epoch', 'seq', 'time_us', 'gap_seq', 'gap_us')
local epoch, seq, time_us, prev_us = held[1], tonumber(held[2]), tonumber(held[3]), nil

-- One mailbox at a time: a table made anew for each costs more than all the rest here.
local box = {made_a_key = false}
local function load(address)
  box.address, box.state_key = address, base .. ':state:' .. address
  local packed = call('GET', box.state_key)
  if packed then
    -- What an earlier version wrote ends earlier.
    packed = packed .. string.rep('\0', STATE_BYTES - #packed)
    box.unread, box.bytes, box.cut_seq, box.cut_us, box.mark_seq, box.mark_us, box.next_us, box.set, box.set_us,
      box.day, box.lost_us = unpack(STATE, packed)
  else
    box.unread, box.bytes, box.cut_seq, box.cut_us, box.mark_seq, box.mark_us, box.next_us, box.set, box.set_us,
      box.day, box.lost_us = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
  end
  box.made_a_key = false
end

-- The set of ids that is being filled, or the other.
local function ids_key(address, set)
  return base .. ':ids:' .. address .. (set % 2 == 0 and ':0' or ':1')
end

-- Keys live on for longer than anything in them.
local KEYS_LIVE = string.format('%d', math.ceil(KEEP_US / 1000000) + 2 * 86400)
local function save(now_us)
  local address, day = box.address, math.floor(now_us / DAY_US)
  local renewed = box.made_a_key or box.day ~= day
  local unread = box.unread < 0 and 0 or box.unread
  -- All states are of one length. SET would answer with a table, and that costs more than the command.
  call('SETRANGE', box.state_key, 0, pack(STATE, unread, box.bytes, box.cut_seq, box.cut_us, box.mark_seq,
    box.mark_us, box.next_us, box.set, box.set_us, day, box.lost_us))
  if renewed then
    call('EXPIRE', box.state_key, KEYS_LIVE)
    call('EXPIRE', key('box', address), KEYS_LIVE)
    call('EXPIRE', ids_key(address, box.set), KEYS_LIVE)
    if box.set > 0 then
      call('EXPIRE', ids_key(address, box.set - 1), KEYS_LIVE)
    end
    if box.mark_seq > 0 then
      call('EXPIRE', key('marks', address), KEYS_LIVE)
    end
  end
end

-- The number and time of an item's record, when it expires, and its id.
local function read_item(item)
  local seq, time_us, expires_us, length = unpack(ITEM, item)
  return seq, time_us, expires_us, string.sub(item, ITEM_BYTES + 1, ITEM_BYTES + length)
end

-- Forgets an item that has left the list; who was shown less than this place has missed something.
local function forget(item)
  local seq, time_us, _, id = read_item(item)
  box.bytes = box.bytes - #item
  local mark = box.mark_seq > 0 and call('HGET', key('marks', box.address), id)
  if mark then
    call('HDEL', key('marks', box.address), id)
    local _, mark_seq, mark_us = unpack(MARK, mark)
    seq, time_us = math.max(seq, mark_seq), math.max(time_us, mark_us)
  else
    box.unread = box.unread - 1
  end
  return seq, time_us
end

-- Notes that Redis has lost items, as one that evicts does: who was shown less than all before this call has missed
-- something.
local function note_loss(now_us)
  box.lost_us = now_us
  box.cut_seq = math.max(box.cut_seq, tonumber(held[2]) or 0)
  box.cut_us = math.max(box.cut_us, tonumber(held[3]) or 0)
end

-- Drops what has expired, and counts what is left. Nobody is told: each item says when it expires. Items leave
-- the list only as they are counted, and a list and its count expire together: where there is only one of the two,
-- Redis has lost the other.
local function expire(now_us, length)
  local is_lost = length and (length > 0) ~= (box.bytes > 0)
  if not is_lost and (box.next_us == 0 or box.next_us > now_us) then
    return false
  end
  local name, marks = key('box', box.address), key('marks', box.address)
  local items = call('LRANGE', name, 0, -1)
  if (#items > 0) ~= (box.bytes > 0) then
    note_loss(now_us)
  end
  box.next_us, box.unread, box.bytes = 0, 0, 0
  for _, item in ipairs(items) do
    local _, _, expires_us, id = read_item(item)
    if expires_us <= now_us then
      call('LREM', name, 1, item)
      call('HDEL', marks, id)
    else
      box.bytes = box.bytes + #item
      if call('HEXISTS', marks, id) == 0 then
        box.unread = box.unread + 1
      end
      if box.next_us == 0 or expires_us < box.next_us then
        box.next_us = expires_us
      end
    end
  end
  return true
end

-- A part of a record, for who follows the address; the payload comes after it.
local function letter(kind, address, unread, id, payload)
  return pack('>BI2', kind, #address) .. address .. pack('>I4I2', unread < 0 and 0 or unread, #id) .. id
    .. pack('>I4', #payload)
end

-- Numbers and logs each payload as a record, and publishes them, last.
local function begin_record(now_us)
  epoch, seq, time_us, prev_us = next_record(epoch, seq, time_us, nonce, now_us)
end
local function write_records(records)
  for _, record in ipairs(records) do
    log_record(log, ARGV[3], record[1], record[2], record[3])
  end
  call('HSET', head, 'epoch', string.format('%d', epoch), 'seq', string.format('%d', seq),
    'time_us', string.format('%d', time_us))
  for _, record in ipairs(records) do
    trim(log, record[1], record[2], tonumber(ARGV[4]), tonumber(ARGV[5]), record[3])
  end
  for _, record in ipairs(records) do
    publish(base, record[3])
  end
end
