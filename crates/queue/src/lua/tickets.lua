-- Tickets: how they are stored, how they wait, and how they end. Follows room.lua and lottery.lua.

-- A ticket, or nil. A number that was not given out yet may have a ticket of an earlier life of the room.
local function read_ticket(n)
  local packed = n <= room.tickets and redis.call('HGET', base .. ':tickets:' .. math.floor(n / 64), n % 64)
  return packed and cmsgpack.unpack(packed)
end

-- A ticket that the room counts on. If Redis has lost the ticket, a placeholder without a visitor takes its place; the visitor
-- can only join again.
local function ticket_or_placeholder(n, state)
  return read_ticket(n) or {state, room.at, 0, 0, 0}
end

local function write_ticket(n, ticket)
  redis.call('HSET', base .. ':tickets:' .. math.floor(n / 64), n % 64, cmsgpack.pack(ticket))
end

-- Takes a ticket out of the line. Returns its place, or 0 if it has none.
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

-- The counter of the room for each reason.
local COUNTERS = {[LEFT] = 'left', [RELEASED] = 'left', [REMOVED] = 'left', [NO_SHOW] = 'no_shows',
  [SESSION_OVER] = 'expired', [AWAY] = 'away'}

-- Ends a ticket that waits or is inside, for a reason.
local function end_ticket(n, ticket, reason)
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

-- Sets the deadline of a claim or a session, in room time. Returns it in milliseconds since 1970.
local function set_deadline(n, ticket, seconds)
  ticket[DEADLINE] = room.now + seconds * 1000000
  room.active = room.active + redis.call('ZADD', base .. ':active', string.format('%d', ticket[DEADLINE]), n)
  return math.floor((room.at + seconds * 1000000) / 1000)
end

-- Admits at most `limit` tickets from the head of the line. Returns how many it admitted.
local function admit(limit)
  if room.phase ~= OPENED or room.mode == PAUSED or room.mode == CLOSED then
    return 0
  end
  local admitted = 0
  while admitted < limit and room.waiting > 0 and room.active < room.max and room.credit >= 1 do
    local place = redis.call('BITPOS', base .. ':waiting', 1, math.floor(room.next / 8))
    if place < 0 then
      -- Redis has lost the bitmap of the line.
      room.waiting = 0
      break
    end
    local n = ticket_at(place)
    local ticket = ticket_or_placeholder(n, WAITING)
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

-- What the service needs of a ticket and its room (ticket.rs reads it).
local function ticket_reply(n, ticket)
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
