-- Changes the mode of a room.
--
-- ARGV, from 3: the mode.
-- Returns {'ok'}, or a refusal: no_room, closed.
if not room then
  return {'no_room'}
end
local mode = tonumber(ARGV[3])
if room.mode == CLOSED and mode ~= CLOSED then
  return {'closed'}
end
if room.mode ~= mode then
  advance()
  room.mode = mode
  append(event(MODE_EVENT, mode))
end
-- A repeated call writes the room too, so that it waits for the replicas of a write.
finish()
return {'ok'}
