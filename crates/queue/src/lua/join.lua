-- Joins a room: gives a visitor a ticket.
--
-- ARGV, from 3: the idempotency key (16 bytes), the bucket of the key, the number of records that may be unrelayed.
-- Returns a ticket_reply, or a refusal: no_room, closed, draining, full.
if not room then
  return {'no_room'}
end
if room.mode == CLOSED then
  return {'closed'}
end
local keys = base .. ':keys:' .. ARGV[4]
local known = tonumber(redis.call('HGET', keys, ARGV[3]))
local ticket = known and known <= room.tickets and read_ticket(known)
-- A key may outlive its ticket. Then its number belongs to an earlier life of the room, or by now to another visitor.
if ticket and ticket[KEY] == ARGV[3] then
  advance()
  note_sign_of_life(known, ticket)
  finish()
  return ticket_reply(known, ticket)
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
return ticket_reply(n, ticket)
