-- Joins; follows record.lua and room.lua.
--
-- ARGV, from 3: the idempotency key (16 bytes), its bucket, how many records may be unrelayed.
-- Returns what `tell` tells, or a word: no_room, closed, draining, full.
if not room then
  return {'no_room'}
end
if room.mode == CLOSED then
  return {'closed'}
end
local keys = base .. ':keys:' .. ARGV[4]
local known = tonumber(redis.call('HGET', keys, ARGV[3]))
local ticket = known and known <= room.tickets and read_ticket(known)
-- A key may outlive its ticket: then the number is of an earlier life of the room, or it is another visitor's by now.
if ticket and ticket[KEY] == ARGV[3] then
  advance()
  see(known, ticket)
  finish()
  return tell(known, ticket)
elseif room.mode == DRAINING then
  return {'draining'}
elseif seq - room.relayed >= tonumber(ARGV[5]) then
  return {'full'}
end

advance()
local n = room.tickets + 1
room.tickets = n
room.waiting = room.waiting + 1
if room.phase ~= OPENED then
  redis.call('SETBIT', base .. ':early', n, 1)
end
if room.phase ~= EARLY then
  redis.call('SETBIT', base .. ':waiting', n, 1)
end
redis.call('HSET', keys, ARGV[3], n)
append(event(JOINED_EVENT, n))
ticket = {WAITING, time_us, 0, room.now, 0, ARGV[3]}
list_away(n, ticket)
write_ticket(n, ticket)
if admit(10) > 0 then
  ticket = read_ticket(n)
end
finish()
return tell(n, ticket)
