-- Notes which tickets have a stream at an edge.
--
-- ARGV, from 3: the edge; '1' if the edge has no other streams than these; its lease, in microseconds of room time; the
-- number of tickets that follow and have a stream now. All further tickets have no stream any more.
-- Returns {'ok', 1}; {'ok', 0} if the lease of the edge had run out, so that the edge must send all its tickets; or
-- {'no_room'}.
if not room then
  return {'no_room'}
end
if room.mode == CLOSED then
  return {'ok', 1}
end
advance()
local edges, edge = base .. ':edges', ARGV[3]
local lease = redis.call('HGET', edges, edge)
if ARGV[4] == '1' then
  -- What the edge had before, even in an earlier life of the room, now belongs to an edge whose lease is over: tick.lua
  -- works it off.
  local before = edge .. '~' .. nonce
  if redis.call('EXISTS', base .. ':seen:' .. edge) == 1 then
    redis.call('RENAME', base .. ':seen:' .. edge, base .. ':seen:' .. before)
    redis.call('HSET', edges, before, 0)
  end
elseif not lease or tonumber(lease) <= room.now then
  return {'ok', 0}
end
redis.call('HSET', edges, edge, string.format('%d', room.now + tonumber(ARGV[5])))
local seen, last_opened = base .. ':seen:' .. edge, 6 + tonumber(ARGV[6])
for i = 7, #ARGV do
  local n = tonumber(ARGV[i])
  if n <= room.tickets then
    redis.call('SETBIT', seen, n, i <= last_opened and 1 or 0)
    local ticket = i > last_opened and read_ticket(n)
    -- Whether the ticket still has its place is not checked here, unlike in note_sign_of_life: after an opening, that
    -- would take long for many tickets.
    if ticket and ticket[STATE] == WAITING then
      begin_grace(n, ticket)
    end
  end
end
finish()
return {'ok', 1}
