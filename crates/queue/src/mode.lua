-- Changes a room's mode; follows record.lua and room.lua.
--
-- ARGV, from 3: the mode.
-- Returns {'ok'}, or a word: no_room, closed.
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
  append(event(6, mode))
end
-- Also who repeats waits for the replicas of a write.
finish()
return {'ok'}
