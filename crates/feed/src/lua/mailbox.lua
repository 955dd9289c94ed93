-- What all scripts of mailboxes begin with. Follows record.lua.
--
-- A mailbox belongs to an address. Many mailboxes share one feed, whose records say what happened in which mailbox.
-- All keys of a mailbox have the hash tag of that feed. mailbox/item.rs and mailbox/letter.rs read the same layouts.
--
-- KEYS: the log, the head, and a key that never exists (keys.rs says why).
-- ARGV: base (the channel, with which all keys begin), nonce, what the log keeps (max_entries, max_age_us, max_bytes),
--       what a mailbox keeps (items, bytes, microseconds), and from FIRST_ARG on what the single script says.
--
-- Keys: base:box:A    a list of items, oldest first: ITEM, the id, the payload.
--       base:marks:A  a hash from ids to MARK: items that were read, and items that were deleted, for devices that do
--                     not know it yet.
--       base:ids:A:N  two sets of hashes of ids that were filed, N being 0 or 1. One is filled, then the other.
--       base:state:A  a string, as STATE says.
local FIRST_ARG = 9

local log, head, base, nonce = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local LOG_ENTRIES, LOG_AGE_US, LOG_BYTES = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local KEEP_ITEMS, KEEP_BYTES, KEEP_US = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local call, pack, unpack = redis.call, struct.pack, struct.unpack

-- An item: number and time of its record, when it expires, the length of its id.
local ITEM = '>I8I8I8I2'
local ITEM_BYTES = 26
-- A mark: READ or DELETED, number and time of its record.
local MARK = '>BI8I8'
-- A mailbox: the number of unread items; the bytes of all items; number and time up to which something was cut off;
-- number and time of the last mark; when the next item expires; the number of the set of ids that is filled, and
-- since when; the day on which the expiry of the keys was last put off; when Redis was found to have lost items.
local STATE = '>I4I4I8I8I8I8I8I4I8I4I8'
local STATE_BYTES = 72

-- What a letter says: an item was filed, items were read, items were deleted, or something is missing for good. A gap
-- has no address: it concerns all.
local FILED, READ, DELETED, GAP = 1, 2, 3, 4
-- A letter: its kind, the length of the address, the address, then how many items are unread and the length of the
-- id, the id, the length of the payload, the payload.
local LETTER_START, LETTER_COUNTS, LETTER_LENGTH = '>BI2', '>I4I2', '>I4'

local DAY_US = 86400000000
-- An id is known for this long, and for as long as its item is there: a set holds many more ids than a mailbox has
-- items.
local KNOWN_US = DAY_US
local IDS_PER_SET = math.max(512, 2 * KEEP_ITEMS)
-- The keys of a mailbox live longer than anything in them.
local KEYS_LIVE_SECONDS = string.format('%d', math.ceil(KEEP_US / 1000000) + 2 * 86400)

local function key(kind, address)
  return base .. ':' .. kind .. ':' .. address
end

-- The last record of the feed, or the one that is being made.
local held = call('HMGET', head, 'epoch', 'seq', 'time_us', 'gap_seq', 'gap_us')
local epoch, seq, time_us, prev_us = held[1], tonumber(held[2]), tonumber(held[3]), nil

-- The mailbox in hand. One table serves all: a new one for each mailbox would cost more than all the rest.
local box = {made_a_key = false}
local function load(address)
  box.address, box.state_key = address, base .. ':state:' .. address
  local packed = call('GET', box.state_key)
  if packed then
    -- The state that an earlier version wrote is shorter.
    packed = packed .. string.rep('\0', STATE_BYTES - #packed)
    box.unread, box.bytes, box.cut_seq, box.cut_us, box.mark_seq, box.mark_us, box.next_us, box.set, box.set_us,
      box.day, box.lost_us = unpack(STATE, packed)
  else
    box.unread, box.bytes, box.cut_seq, box.cut_us, box.mark_seq, box.mark_us, box.next_us, box.set, box.set_us,
      box.day, box.lost_us = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
  end
  box.made_a_key = false
end

-- Returns the key of a set of ids, by its number.
local function ids_key(address, set)
  return base .. ':ids:' .. address .. (set % 2 == 0 and ':0' or ':1')
end

-- Writes the state of the mailbox. Once a day, and where a key was made, puts off the expiry of its keys.
local function save(now_us)
  local address, day = box.address, math.floor(now_us / DAY_US)
  local renewed = box.made_a_key or box.day ~= day
  local unread = box.unread < 0 and 0 or box.unread
  -- SETRANGE will do, as all states are of one length. The answer of SET is a table, which costs more than the
  -- command.
  call('SETRANGE', box.state_key, 0, pack(STATE, unread, box.bytes, box.cut_seq, box.cut_us, box.mark_seq,
    box.mark_us, box.next_us, box.set, box.set_us, day, box.lost_us))
  if renewed then
    call('EXPIRE', box.state_key, KEYS_LIVE_SECONDS)
    call('EXPIRE', key('box', address), KEYS_LIVE_SECONDS)
    call('EXPIRE', ids_key(address, box.set), KEYS_LIVE_SECONDS)
    if box.set > 0 then
      call('EXPIRE', ids_key(address, box.set - 1), KEYS_LIVE_SECONDS)
    end
    if box.mark_seq > 0 then
      call('EXPIRE', key('marks', address), KEYS_LIVE_SECONDS)
    end
  end
end

-- Returns number and time of the record of an item, when the item expires, and its id.
local function read_item(item)
  local seq, time_us, expires_us, length = unpack(ITEM, item)
  return seq, time_us, expires_us, string.sub(item, ITEM_BYTES + 1, ITEM_BYTES + length)
end

-- Uncounts an item that has left the list, and drops its mark. Returns the number and time of its last record: a
-- device that was shown less has missed something.
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

-- Notes that Redis has lost items, for example by eviction: a device that was shown less than everything before this
-- call has missed something.
local function note_loss(now_us)
  box.lost_us = now_us
  box.cut_seq = math.max(box.cut_seq, tonumber(held[2]) or 0)
  box.cut_us = math.max(box.cut_us, tonumber(held[3]) or 0)
end

-- Drops the items that have expired, and counts the others. No record says so, since each item says when it expires.
-- Returns whether anything may have changed.
--
-- Items leave the list only together with their count, and the list and the count expire together. So if only one of
-- the two is there, Redis has lost the other. `length` is the length of the list if the caller knows it.
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

-- Returns a letter without its payload, which follows it.
local function letter(kind, address, unread, id, payload)
  return pack(LETTER_START, kind, #address) .. address .. pack(LETTER_COUNTS, unread < 0 and 0 or unread, #id) .. id
    .. pack(LETTER_LENGTH, #payload)
end

-- Begins the next record of the feed.
local function begin_record(now_us)
  epoch, seq, time_us, prev_us = next_record(epoch, seq, time_us, nonce, now_us)
end

-- Logs records, each of which is {seq, time_us, bytes}, moves the head, and publishes the records last.
local function write_records(records)
  for _, record in ipairs(records) do
    log_record(log, LOG_ENTRIES, record[1], record[2], record[3])
  end
  call('HSET', head, 'epoch', string.format('%d', epoch), 'seq', string.format('%d', seq),
    'time_us', string.format('%d', time_us))
  for _, record in ipairs(records) do
    trim(log, record[1], record[2], LOG_AGE_US, LOG_BYTES, record[3])
  end
  for _, record in ipairs(records) do
    publish(base, record[3])
  end
end
