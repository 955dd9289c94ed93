-- Which waiting tickets have shown a sign of life within the grace period. Follows tickets.lua.
--
-- A stream at an edge is a sign of life for as long as the lease of the edge holds; so is each request with the token of
-- the ticket. Every waiting ticket stands in the list of the second in which its grace ends at the earliest. Only tick.lua,
-- which works through these lists, then checks whether a sign of life came since: a sign of life costs one write of the
-- ticket, and an open stream costs nothing.

-- Puts a waiting ticket on the list of the second after the end of its grace.
local function list_away(n, ticket)
  local at = math.floor((ticket[SEEN_AT] + room.grace * 1000000) / 1000000) + 1
  at = math.max(at, room.swept + 1)
  redis.call('RPUSH', base .. ':away:' .. at, n)
  room.last_away = math.max(room.last_away, at)
  ticket[LISTED] = 1
end

-- Whether an edge whose lease holds has a stream of the ticket.
local function is_present(n)
  local edges = redis.call('HGETALL', base .. ':edges')
  for i = 1, #edges, 2 do
    if tonumber(edges[i + 1]) > room.now and redis.call('GETBIT', base .. ':seen:' .. edges[i], n) == 1 then
      return true
    end
  end
  return false
end

-- Starts the grace of a waiting ticket again.
local function begin_grace(n, ticket)
  ticket[SEEN_AT] = room.now
  if ticket[LISTED] == 0 and not is_present(n) then
    list_away(n, ticket)
  end
  write_ticket(n, ticket)
end

-- Notes a sign of life of a ticket. A ticket that waits but has no place in the line, because Redis has lost it, would
-- wait for ever: it is removed.
local function note_sign_of_life(n, ticket)
  if ticket[STATE] == WAITING and room.phase == OPENED and redis.call('GETBIT', base .. ':waiting', place_of(n)) == 0 then
    end_ticket(n, ticket, REMOVED)
  elseif ticket[STATE] == WAITING then
    begin_grace(n, ticket)
  end
end
