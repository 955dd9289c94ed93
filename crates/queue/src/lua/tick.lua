-- Moves the time of a room forward: opens the room, expires and admits tickets, sends the pulse. Any replica may run it at
-- any time, also twice.
--
-- ARGV, from 3: the maximum number of changes.
-- Returns {'ok', 1 if there is more to do at once, seq, relayed, waiting, active}, or a refusal: no_room, or over once a
-- closed room has been cleared away.
if not room then
  return {'no_room'}
end
local limit = tonumber(ARGV[3])
local done = 0
-- The seconds for which the head and log of a closed room are kept.
local DAY = 86400
-- The highest bucket of idempotency keys.
local LAST_KEYS = 16383

-- Deletes what the visitors of a closed room left, at most `limit` buckets. `room.purged` is the next bucket, or -1 once
-- all are deleted. The head and the log expire after a day.
local function clear_closed_room()
  local last = math.max(math.floor(room.tickets / 64), LAST_KEYS, room.last_away)
  local from = room.purged
  while room.purged <= last and room.purged - from < limit do
    local number = room.purged
    redis.call('DEL', base .. ':tickets:' .. number, base .. ':keys:' .. number, base .. ':away:' .. number)
    room.purged = number + 1
  end
  if room.purged > last then
    delete_line()
    room.purged, room.waiting, room.active = -1, 0, 0
  end
  finish()
  redis.call('EXPIRE', head, DAY)
  redis.call('EXPIRE', log, DAY)
end

-- Opens the room at its opening time: gives the early tickets their places, and appends the event once all have one.
local function open_room()
  if room.phase == EARLY and room.at >= room.opens * 1000 then
    room.phase, room.early, room.moved = OPENING, room.tickets, 0
  end
  if room.phase ~= OPENING then
    return
  end
  while room.moved < room.early and done < limit do
    local n = room.moved + 1
    if redis.call('GETBIT', base .. ':early', n) == 1 then
      redis.call('SETBIT', base .. ':waiting', place_of(n), 1)
    end
    room.moved = n
    done = done + 1
  end
  if room.moved >= room.early then
    redis.call('DEL', base .. ':early')
    room.phase = OPENED
    append(encode(OPENED_EVENT, (room.early > 0 and string.char(8) .. varint(room.early) or '') .. encode(2, room.seed)))
  end
end

-- Ends admissions that were not claimed in time, and sessions that were not renewed.
local function expire_inside()
  local over = redis.call('ZRANGEBYSCORE', base .. ':active', '-inf', string.format('%d', room.now),
    'LIMIT', 0, math.max(limit - done, 0))
  for i = 1, #over do
    local n = tonumber(over[i])
    local ticket = ticket_or_placeholder(n, CLAIMED)
    end_ticket(n, ticket, ticket[STATE] == ADMITTED and NO_SHOW or SESSION_OVER)
  end
  done = done + #over
end

-- Starts the grace of the tickets of one edge whose lease is over. Returns whether all its tickets are done.
local function release_streams(seen)
  local from = 0
  while done < limit do
    local n = redis.call('BITPOS', seen, 1, from)
    if n < 0 then
      return true
    end
    from = math.floor(n / 8)
    redis.call('SETBIT', seen, n, 0)
    local ticket = read_ticket(n)
    if ticket and ticket[STATE] == WAITING then
      ticket[SEEN_AT] = room.now
      if ticket[LISTED] == 0 then
        list_away(n, ticket)
      end
      write_ticket(n, ticket)
    end
    done = done + 1
  end
  return false
end

-- Ends the leases of edges that sent nothing in time: from now on nothing is known of their streams.
local function end_leases()
  local edges = redis.call('HGETALL', base .. ':edges')
  for i = 1, #edges, 2 do
    if tonumber(edges[i + 1]) <= room.now then
      local seen = base .. ':seen:' .. edges[i]
      if release_streams(seen) then
        redis.call('DEL', seen)
        redis.call('HDEL', base .. ':edges', edges[i])
      end
    end
  end
end

-- Ends the tickets that showed no sign of life for the grace period. Signs of life since a ticket was listed are noticed
-- only here.
local function expire_absent()
  local second = math.floor(room.now / 1000000)
  while room.swept < second and done < limit do
    local popped = redis.call('LPOP', base .. ':away:' .. (room.swept + 1))
    if not popped then
      room.swept = room.swept + 1
    else
      local n = tonumber(popped)
      local ticket = read_ticket(n)
      if ticket and ticket[STATE] == WAITING then
        ticket[LISTED] = 0
        if is_present(n) then
          write_ticket(n, ticket)
        elseif ticket[SEEN_AT] + room.grace * 1000000 > room.now then
          list_away(n, ticket)
          write_ticket(n, ticket)
        else
          end_ticket(n, ticket, AWAY)
        end
      end
      done = done + 1
    end
  end
end

-- Deletes the idempotency key of a ticket of the bucket `room.cleared`, unless it belongs to a later ticket by now.
local function forget_key(key)
  local first, second = string.byte(key, 1, 2)
  local keys = base .. ':keys:' .. (first * 256 + second) % (LAST_KEYS + 1)
  local known = redis.call('HGET', keys, key)
  if known and math.floor(known / 64) == room.cleared then
    redis.call('HDEL', keys, key)
  end
end

-- Deletes tickets that have been gone for KEEP_GONE, 64 at once, in the order of their numbers. A bucket that may still
-- grow, or has a ticket that is not gone for so long, ends the pass; the next pass starts after 60 s of room time.
local function forget_gone()
  while room.now >= room.clear_at and done < limit do
    local bucket, newest = base .. ':tickets:' .. room.cleared, 0
    local tickets = redis.call('HVALS', bucket)
    for i = 1, #tickets do
      tickets[i] = cmsgpack.unpack(tickets[i])
      newest = math.max(newest, tickets[i][STATE] > CLAIMED and tickets[i][DEADLINE] or room.now)
    end
    if room.cleared * 64 + 63 > room.tickets or newest + KEEP_GONE > room.now then
      room.clear_at = room.now + 60000000
      break
    end
    for i = 1, #tickets do
      if tickets[i][KEY] then
        forget_key(tickets[i][KEY])
      end
    end
    redis.call('DEL', bucket)
    room.cleared = room.cleared + 1
    done = done + 64
  end
end

-- Appends the pulse, once a second, and measures the pace: the admissions a second while visitors waited, averaged over
-- the last ten seconds or so.
local function pulse()
  local passed = room.now - room.pulse_at
  if passed < 1000000 then
    return
  end
  -- Redis may have lost part of the line or of the tickets inside, so both are counted again.
  if room.phase == OPENED then
    room.waiting = redis.call('BITCOUNT', base .. ':waiting', math.floor(room.next / 8), -1)
  end
  room.active = redis.call('ZCARD', base .. ':active')
  if room.waiting > 0 and room.phase == OPENED and room.mode ~= PAUSED then
    local recent = (room.admitted - room.pulse_admitted) * 1000000 / passed
    room.pace = room.pace + (recent - room.pace) * math.min(1, passed / 10000000)
  end
  room.pulse_at, room.pulse_admitted = room.now, room.admitted
  append(event(PULSE_EVENT, room.active, math.floor(room.pace * 1000)))
end

if room.mode == CLOSED then
  if room.purged < 0 then
    return {'over'}
  end
  clear_closed_room()
  return {'ok', room.purged >= 0 and 1 or 0, seq, room.relayed, 0, 0}
end
advance()
open_room()
expire_inside()
end_leases()
expire_absent()
done = done + admit(math.max(limit - done, 0))
forget_gone()
pulse()
finish()
return {'ok', done >= limit and 1 or 0, seq, room.relayed, room.waiting, room.active}
