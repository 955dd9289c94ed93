-- A room: how each script reads it, changes it, and writes it back with its events. Follows record.lua and tags.lua.
-- The state of the room (settings, counters, clock) is one field of the head of the feed, so that no script can see a
-- change without its record.
--
-- KEYS: log, head, and one that never exists (keys.rs of tutti-feed says why).
-- ARGV: base (the channel, the prefix of all keys), nonce (a random number), then the arguments of the script.
--
-- Keys: base:waiting    bitmap by place: which places wait.
--       base:early      bitmap by ticket number: which tickets wait, until all have places.
--       base:tickets:N  hash of 64 tickets by number.
--       base:keys:N     hash of idempotency keys to ticket numbers.
--       base:active     sorted set of the tickets inside, by deadline.
--       base:away:N     list of the tickets to check for absence in second N of room time.
--       base:edges      hash of edges to the ends of their leases.
--       base:seen:EDGE  bitmap by ticket number: which tickets have a stream at the edge.
local log, head, base, nonce = KEYS[1], KEYS[2], ARGV[1], ARGV[2]

-- The records that the log keeps for edges that catch up. It keeps more while the relay needs them.
local LOG_KEEPS = 100000
-- A maximum length that no log reaches: only `finish` trims the log of a room.
local NO_LIMIT = 1000000000
-- The longest step of room time, in microseconds.
local MAX_STEP = 2000000
-- The room time for which a ticket that is gone is remembered, and its idempotency key with it, in microseconds.
local KEEP_GONE = 86400000000

local held = redis.call('HMGET', head, 'epoch', 'seq', 'time_us', 'room')
local epoch, seq, time_us = held[1], tonumber(held[2]), tonumber(held[3])
local room = held[4] and cmsgpack.unpack(held[4])
if room then
  -- Rooms that were made by earlier versions lack these fields.
  room.last_away, room.cleared, room.clear_at = room.last_away or 0, room.cleared or 0, room.clear_at or 0
end
local records = {}

-- Moves room time (`room.now`, in microseconds) forward, by at most MAX_STEP, so that an outage of Redis or of the
-- service expires nobody. The admissions that the rate allows (`room.credit`) grow with it, up to the admissions of a
-- quarter of a second.
local function advance()
  local now_us = clock_us()
  local passed = math.max(0, math.min(now_us - room.at, MAX_STEP))
  room.at = now_us
  room.now = room.now + passed
  room.credit = math.min(math.max(1, room.rate / 4), room.credit + room.rate * passed / 1000000)
end

-- The varint of protobuf.
local function varint(n)
  local bytes = ''
  while n >= 128 do
    bytes = bytes .. string.char(n % 128 + 128)
    n = math.floor(n / 128)
  end
  return bytes .. string.char(n)
end

-- A RoomEvent whose event has the field number `number` and the encoding `body`.
local function encode(number, body)
  return string.char(number * 8 + 2) .. varint(#body) .. body
end

-- A RoomEvent whose fields are integers, given in the order of their field numbers. Zeros are left out.
local function event(number, ...)
  local body = ''
  for i, value in ipairs({...}) do
    if value ~= 0 then
      body = body .. string.char(i * 8) .. varint(value)
    end
  end
  return encode(number, body)
end

-- Appends a record with the time of the last `advance`, so that the records agree with the admissions that had been made
-- by that time. Only `finish` writes it.
local function append(payload)
  local prev_us
  epoch, seq, time_us, prev_us = next_record(epoch, seq, time_us, nonce, room.at)
  records[#records + 1] = {seq, time_us, pack_record(epoch, seq, time_us, prev_us, payload)}
end

-- Writes the records to the log, then the room, and publishes the records last. This is the only writer of a room. If a
-- call fails, the number and the log stay as they were.
local function finish()
  for i = 1, #records do
    log_record(log, NO_LIMIT, records[i][1], records[i][2], records[i][3])
  end
  redis.call('HSET', head, 'epoch', string.format('%d', epoch), 'seq', string.format('%d', seq),
    'time_us', string.format('%d', time_us), 'room', cmsgpack.pack(room))
  if #records > 0 and (seq % 64) < #records then
    local first = math.min(room.relayed, seq - LOG_KEEPS)
    if first > 0 then
      redis.call('XTRIM', log, 'MINID', '~', string.format('%d', first))
    end
  end
  for i = 1, #records do
    publish(base, records[i][3])
  end
end

-- Deletes the keys of the line, of the tickets inside and of the streams at edges.
local function delete_line()
  local edges = redis.call('HKEYS', base .. ':edges')
  for i = 1, #edges do
    redis.call('DEL', base .. ':seen:' .. edges[i])
  end
  redis.call('DEL', base .. ':waiting', base .. ':early', base .. ':active', base .. ':edges')
end
