-- Takes or keeps the lease of the relay to Kafka, and notes how far Kafka has acknowledged; follows
-- record.lua and room.lua. Two relays at once do no harm, so the lease needs no fence.
--
-- ARGV, from 3: the relay, its lease in microseconds, and the epoch, number and time of what Kafka has
-- ('' if it has nothing new). What is not in the log as it was is of a history that Redis has lost.
-- Returns {'ok', epoch, relayed, seq}, or a word: no_room, held (by another).
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
local held_by_another = room.relay ~= ARGV[3] and room.relay_until > now_us
  and room.relay_until <= now_us + tonumber(ARGV[4])
if not held_by_another then
  room.relay, room.relay_until = ARGV[3], now_us + tonumber(ARGV[4])
end
finish()
return held_by_another and {'held'} or {'ok', tonumber(epoch), room.relayed, seq}
