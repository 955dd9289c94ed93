-- Notes which tickets have a stream at an edge; follows record.lua and room.lua.
--
-- ARGV, from 3: the edge, '1' if this is all it has, its lease in microseconds of room time, how
-- many tickets follow that have one now; the rest have none any more.
-- Returns {'ok', 1}, {'ok', 0} if the edge's lease had run out (it must send all), or {'no_room'}.
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
  -- What it had before, be it in an earlier life of the room, is another edge's, whose lease is over.
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
    -- Not whether it has its place still, as in `see`: after an opening that takes long for many.
    if ticket and ticket[STATE] == WAITING then
      begin_grace(n, ticket)
    end
  end
end
finish()
return {'ok', 1}
