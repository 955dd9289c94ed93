-- Shared by all scripts of a room; follows record.lua. The room itself (its settings, counters and
-- clock) is one field of the feed's head, so that nothing can come between a change and its record.
--
-- KEYS: log, head, and one that never is (feed's script.rs says why)
-- ARGV: base (the channel's name, which all keys begin with), nonce, and what the script says.
--
-- Keys: base:waiting   a bit a place: who waits.       base:early  the same by ticket, until all have places.
--       base:tickets:N 64 tickets each, by number.     base:keys:N idempotency keys to tickets.
--       base:active    who is inside, by deadline.     base:away:N who may lose the place in second N.
--       base:edges     leases of edges.                base:seen:EDGE  a bit a ticket with a stream there.
local log, head, base, nonce = KEYS[1], KEYS[2], ARGV[1], ARGV[2]

-- Of a ticket: the states are those of room.proto, and from 11 on the reason why it is gone.
local WAITING, ADMITTED, CLAIMED = 1, 2, 3
local LEFT, RELEASED, REMOVED, NO_SHOW, SESSION_OVER, AWAY = 11, 12, 13, 14, 15, 16
-- Of a room.
local OPEN, PAUSED, DRAINING, CLOSED = 0, 1, 2, 3
-- Its phases: nobody has a place yet; places are being given out; everybody has one.
local EARLY, OPENING, OPENED = 0, 1, 2
-- The fields of a ticket. DEADLINE: of who is inside; once it is gone, since when. LISTED: it stands in one of the base:away lists.
local STATE, JOINED_AT, DEADLINE, SEEN_AT, LISTED, KEY = 1, 2, 3, 4, 5, 6
-- The events.
local JOINED_EVENT, ADMITTED_EVENT, CLAIMED_EVENT, GONE_EVENT, OPENED_EVENT, PULSE_EVENT = 1, 2, 3, 4, 7, 8

-- Records that the log keeps, for edges that have to catch up; more where the relay needs them.
local LOG_KEEPS = 100000
local NO_LIMIT = 1000000000
-- Room time for which a ticket that is gone is remembered, and with it its idempotency key.
local KEEP_GONE = 86400000000
local ROUNDS = 6

local held = redis.call('HMGET', head, 'epoch', 'seq', 'time_us', 'room')
local epoch, seq, time_us = held[1], tonumber(held[2]), tonumber(held[3])
local room = held[4] and cmsgpack.unpack(held[4])
if room then
  -- Of a room that was made before there were these.
  room.last_away, room.cleared, room.clear_at = room.last_away or 0, room.cleared or 0, room.clear_at or 0
end
local records = {}

-- Room time, microseconds. It moves at most 2 s at once, so that an outage of Redis or of the
-- service expires nobody. With it grows what may be admitted, up to a quarter of a second's worth.
local function advance()
  local now_us = clock_us()
  local passed = math.max(0, math.min(now_us - room.at, 2000000))
  room.at = now_us
  room.now = room.now + passed
  room.credit = math.min(math.max(1, room.rate / 4), room.credit + room.rate * passed / 1000000)
end

local function varint(n)
  local bytes = ''
  while n >= 128 do
    bytes = bytes .. string.char(n % 128 + 128)
    n = math.floor(n / 128)
  end
  return bytes .. string.char(n)
end

-- An event as protobuf: its fields are numbers, in the order of their tags; zeros are left out.
local function event(tag, ...)
  local body = ''
  for i, value in ipairs({...}) do
    if value ~= 0 then
      body = body .. string.char(i * 8) .. varint(value)
    end
  end
  return string.char(tag * 8 + 2) .. varint(#body) .. body
end

-- Appends a record, as of the time of `advance`: what was admitted by that time is so by the records.
local function append(payload)
  local prev_us
  epoch, seq, time_us, prev_us = next_record(epoch, seq, time_us, nonce, room.at)
  records[#records + 1] = {seq, time_us, pack_record(epoch, seq, time_us, prev_us, payload)}
end

-- Writes what was appended to the log, the room back, and publishes, last. An error before it leaves
-- number and log as they were.
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

-- A number that was not given out yet may have a ticket of an earlier life of the room.
local function read_ticket(n)
  local packed = n <= room.tickets and redis.call('HGET', base .. ':tickets:' .. math.floor(n / 64), n % 64)
  return packed and cmsgpack.unpack(packed)
end

-- A ticket that the room counts on. One that Redis has lost is nobody's, and its visitor can only join again.
local function ticket_or_nobodys(n, state)
  return read_ticket(n) or {state, room.at, 0, 0, 0}
end

local function write_ticket(n, ticket)
  redis.call('HSET', base .. ':tickets:' .. math.floor(n / 64), n % 64, cmsgpack.pack(ticket))
end

-- The permutation of 0 .. early-1: a Feistel network over the next power of four, walked until the
-- number is within. lottery.rs has the same, and says more.
local function round(i, half, modulus)
  return tonumber(string.sub(redis.sha1hex(room.seed .. ':' .. i .. ':' .. half), 1, 8), 16) % modulus
end

local function walk(x, first, last, step)
  local modulus = 2
  while modulus * modulus < room.early do
    modulus = modulus * 2
  end
  repeat
    local left, right = math.floor(x / modulus), x % modulus
    for i = first, last, step do
      if step > 0 then
        left, right = right, bit.bxor(left, round(i, right, modulus))
      else
        left, right = bit.bxor(right, round(i, left, modulus)), left
      end
    end
    x = left * modulus + right
  until x < room.early
  return x
end

local function place_of(n)
  return n > room.early and n or walk(n - 1, 1, ROUNDS, 1) + 1
end

local function ticket_at(place)
  return place > room.early and place or walk(place - 1, ROUNDS, 1, -1) + 1
end

-- Takes a ticket out of the line; returns its place, if it had one.
local function leave_line(n)
  room.waiting = math.max(0, room.waiting - 1)
  if room.phase ~= OPENED then
    redis.call('SETBIT', base .. ':early', n, 0)
  end
  if room.phase == EARLY or (room.phase == OPENING and n <= room.early and n > room.moved) then
    return 0
  end
  local place = place_of(n)
  redis.call('SETBIT', base .. ':waiting', place, 0)
  return room.phase == OPENED and place or 0
end

local COUNTERS = {[LEFT] = 'left', [RELEASED] = 'left', [REMOVED] = 'left', [NO_SHOW] = 'no_shows',
  [SESSION_OVER] = 'expired', [AWAY] = 'away'}

-- Ends a ticket that waits or is inside.
local function go(n, ticket, reason)
  local was, place = ticket[STATE], 0
  if was == WAITING then
    place = leave_line(n)
  else
    room.active = room.active - redis.call('ZREM', base .. ':active', n)
  end
  ticket[STATE], ticket[DEADLINE] = reason, room.now
  write_ticket(n, ticket)
  room[COUNTERS[reason]] = room[COUNTERS[reason]] + 1
  append(event(GONE_EVENT, n, place, reason, was))
end

-- The deadline of an admission or a session: in room time, and as the wall's clock would show it.
local function set_deadline(n, ticket, seconds)
  ticket[DEADLINE] = room.now + seconds * 1000000
  room.active = room.active + redis.call('ZADD', base .. ':active', string.format('%d', ticket[DEADLINE]), n)
  return math.floor((room.at + seconds * 1000000) / 1000)
end

-- Admits the next in line, at most so many; returns how many.
local function admit(most)
  if room.phase ~= OPENED or room.mode == PAUSED or room.mode == CLOSED then
    return 0
  end
  local admitted = 0
  while admitted < most and room.waiting > 0 and room.active < room.max and room.credit >= 1 do
    local place = redis.call('BITPOS', base .. ':waiting', 1, math.floor(room.next / 8))
    if place < 0 then
      -- Redis has lost who waits.
      room.waiting = 0
      break
    end
    local n = ticket_at(place)
    local ticket = ticket_or_nobodys(n, WAITING)
    redis.call('SETBIT', base .. ':waiting', place, 0)
    room.next = place + 1
    room.waiting = room.waiting - 1
    room.admitted = room.admitted + 1
    room.credit = room.credit - 1
    local claim_by_ms = set_deadline(n, ticket, room.claim)
    ticket[STATE] = ADMITTED
    write_ticket(n, ticket)
    append(event(ADMITTED_EVENT, n, place, claim_by_ms, math.max(0, math.floor((room.at - ticket[JOINED_AT]) / 1000))))
    admitted = admitted + 1
  end
  return admitted
end

-- Sees to it that a waiting ticket is looked at when its grace is over, unless that is so already.
local function list_away(n, ticket)
  local at = math.floor((ticket[SEEN_AT] + room.grace * 1000000) / 1000000) + 1
  at = math.max(at, room.swept + 1)
  redis.call('RPUSH', base .. ':away:' .. at, n)
  room.last_away = math.max(room.last_away, at)
  ticket[LISTED] = 1
end

-- Whether an edge whose lease holds has a stream of this ticket.
local function is_present(n)
  local edges = redis.call('HGETALL', base .. ':edges')
  for i = 1, #edges, 2 do
    if tonumber(edges[i + 1]) > room.now and redis.call('GETBIT', base .. ':seen:' .. edges[i], n) == 1 then
      return true
    end
  end
  return false
end

-- Begins the grace of one who waits anew.
local function begin_grace(n, ticket)
  ticket[SEEN_AT] = room.now
  if ticket[LISTED] == 0 and not is_present(n) then
    list_away(n, ticket)
  end
  write_ticket(n, ticket)
end

-- A sign of life of one who waits. Who has no place in line any more, for Redis has lost it, waits in vain.
local function see(n, ticket)
  if ticket[STATE] == WAITING and room.phase == OPENED and redis.call('GETBIT', base .. ':waiting', place_of(n)) == 0 then
    go(n, ticket, REMOVED)
  elseif ticket[STATE] == WAITING then
    begin_grace(n, ticket)
  end
end

-- A ticket as the service wants it.
local function tell(n, ticket)
  local position = 0
  if ticket[STATE] == WAITING and room.phase == OPENED then
    if n == room.tickets and n > room.early then
      position = room.waiting
    else
      local from = math.floor(room.next / 8) * 8
      position = redis.call('BITCOUNT', base .. ':waiting', from, place_of(n), 'BIT')
    end
  end
  local until_ms = math.floor((room.at + ticket[DEADLINE] - room.now) / 1000)
  return {'ok', n, tonumber(epoch), ticket[JOINED_AT], ticket[STATE], position, room.waiting, seq, time_us,
    math.floor(room.pace * 1000), room.mode, ticket[DEADLINE] > 0 and until_ms or 0, room.pass, room.at}
end
