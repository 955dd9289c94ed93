-- Takes or keeps the lease of the relay to Kafka, and notes what Kafka has acknowledged. Two relays at once do no harm, so
-- the lease needs no fence.
--
-- ARGV, from 3: the name of the relay; its lease in microseconds; the epoch, number and time of the last record that Kafka
-- has acknowledged ('' if there is none). A record that is not in the log belongs to a history that Redis has lost, and is
-- not noted.
-- Returns {'ok', epoch, relayed, seq}, or a refusal: no_room, held (by another relay).
if not room then
  return {'no_room'}
end
local now_us = clock_us()
if ARGV[5] == epoch then
  local id = ARGV[6] .. '-' .. ARGV[7]
  if #redis.call('XRANGE', log, id, id) == 1 then
    room.relayed = math.max(room.relayed, tonumber(ARGV[6]))
  end
end
-- A lease that ends later than a new one would is from before the clock of Redis was set back.
local held_by_another = room.relay ~= ARGV[3] and room.relay_until > now_us
  and room.relay_until <= now_us + tonumber(ARGV[4])
if not held_by_another then
  room.relay, room.relay_until = ARGV[3], now_us + tonumber(ARGV[4])
end
finish()
return held_by_another and {'held'} or {'ok', tonumber(epoch), room.relayed, seq}
