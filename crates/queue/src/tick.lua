-- Lets the room's time go on: opens, expires, admits. Any replica may run it at any time, and twice.
-- Follows record.lua and room.lua.
--
-- ARGV, from 3: how many changes to make at most.
-- Returns {'ok', 1 if there is more to do at once, seq, relayed, waiting, active}, or a word: no_room, or
-- over once a closed room has been cleared away.
if not room then
  return {'no_room'}
end
local most = tonumber(ARGV[3])
local done = 0
local DAY = 86400

-- Clears away what a closed room's visitors left; head and log stay for a day.
if room.mode == CLOSED then
  if room.purged < 0 then
    return {'over'}
  end
  local last = math.max(math.floor(room.tickets / 64), 16383, room.last_away)
  local from = room.purged
  while room.purged <= last and room.purged - from < most do
    local number = room.purged
    redis.call('DEL', base .. ':tickets:' .. number, base .. ':keys:' .. number, base .. ':away:' .. number)
    room.purged = number + 1
  end
  if room.purged > last then
    local edges = redis.call('HKEYS', base .. ':edges')
    for i = 1, #edges do
      redis.call('DEL', base .. ':seen:' .. edges[i])
    end
    redis.call('DEL', base .. ':waiting', base .. ':early', base .. ':active', base .. ':edges')
    room.purged, room.waiting, room.active = -1, 0, 0
  end
  finish()
  redis.call('EXPIRE', head, DAY)
  redis.call('EXPIRE', log, DAY)
  return {'ok', room.purged >= 0 and 1 or 0, seq, room.relayed, 0, 0}
end

advance()

-- Opens: gives the early their places, by the permutation, and says so once all have one.
if room.phase == EARLY and room.at >= room.opens * 1000 then
  room.phase, room.early, room.moved = OPENING, room.tickets, 0
end
if room.phase == OPENING then
  while room.moved < room.early and done < most do
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
    local seed = string.char(2 * 8 + 2) .. varint(#room.seed) .. room.seed
    local body = (room.early > 0 and string.char(8) .. varint(room.early) or '') .. seed
    append(string.char(OPENED_EVENT * 8 + 2) .. varint(#body) .. body)
  end
end

-- No-shows, and sessions that were not renewed.
local over = redis.call('ZRANGEBYSCORE', base .. ':active', '-inf', string.format('%d', room.now),
  'LIMIT', 0, math.max(most - done, 0))
for i = 1, #over do
  local n = tonumber(over[i])
  local ticket = ticket_or_nobodys(n, CLAIMED)
  go(n, ticket, ticket[STATE] == ADMITTED and NO_SHOW or SESSION_OVER)
end
done = done + #over

-- Edges whose lease ran out: from now on nothing is heard of their visitors.
local edges = redis.call('HGETALL', base .. ':edges')
for i = 1, #edges, 2 do
  if tonumber(edges[i + 1]) <= room.now then
    local seen, from = base .. ':seen:' .. edges[i], 0
    local n = -1
    while done < most do
      n = redis.call('BITPOS', seen, 1, from)
      if n < 0 then
        break
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
    if n < 0 and done < most then
      redis.call('DEL', seen)
      redis.call('HDEL', base .. ':edges', edges[i])
    end
  end
end

-- Those of whom nothing was heard for the grace period. What was heard since is seen only here.
local second = math.floor(room.now / 1000000)
while room.swept < second and done < most do
  local list = base .. ':away:' .. (room.swept + 1)
  local popped = redis.call('LPOP', list)
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
        go(n, ticket, AWAY)
      end
    end
    done = done + 1
  end
end

done = done + admit(math.max(most - done, 0))

-- Forgets tickets that have been gone for long, 64 at once, in the order of their numbers.
while room.now >= room.clear_at and done < most do
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
    local key = tickets[i][KEY]
    if key then
      local first, second = string.byte(key, 1, 2)
      local keys = base .. ':keys:' .. (first * 256 + second) % 16384
      local known = redis.call('HGET', keys, key)
      -- It may be the key of a later ticket by now.
      if known and math.floor(known / 64) == room.cleared then
        redis.call('HDEL', keys, key)
      end
    end
  end
  redis.call('DEL', bucket)
  room.cleared = room.cleared + 1
  done = done + 64
end

-- The pulse, once a second; with it the pace of the last ten seconds or so, while people waited.
local passed = room.now - room.pulse_at
if passed >= 1000000 then
  -- Who waits or is inside may have been lost.
  if room.phase == OPENED then
    room.waiting = redis.call('BITCOUNT', base .. ':waiting', math.floor(room.next / 8), -1)
  end
  room.active = redis.call('ZCARD', base .. ':active')
  if room.waiting > 0 and room.phase == OPENED and room.mode ~= PAUSED then
    local lately = (room.admitted - room.pulse_admitted) * 1000000 / passed
    room.pace = room.pace + (lately - room.pace) * math.min(1, passed / 10000000)
  end
  room.pulse_at, room.pulse_admitted = room.now, room.admitted
  append(event(PULSE_EVENT, room.active, math.floor(room.pace * 1000)))
end
finish()
return {'ok', done >= most and 1 or 0, seq, room.relayed, room.waiting, room.active}
