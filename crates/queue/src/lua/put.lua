-- Makes a room, or changes its settings.
--
-- ARGV, from 3: max, rate, claim, session, pass, grace, opens (milliseconds since 1970, 0 for at once), each '' to keep the
-- present value; then, if the room may be made, a seed and its SHA-256.
-- Returns {'ok'}, or a refusal: no_room, closed, opened (the opening time of an open room cannot change).
local settings = {max = tonumber(ARGV[3]), rate = tonumber(ARGV[4]), claim = tonumber(ARGV[5]),
  session = tonumber(ARGV[6]), pass = tonumber(ARGV[7]), grace = tonumber(ARGV[8]), opens = tonumber(ARGV[9])}
local now_us = clock_us()
if not room and not ARGV[10] then
  return {'no_room'}
elseif not room then
  -- If Redis has lost the room, some keys of its earlier life may be left.
  delete_line()
  settings.opens = settings.opens or 0
  room = {
    rate = settings.rate, opens = settings.opens, mode = OPEN, phase = settings.opens * 1000 > now_us and EARLY or OPENED,
    seed = ARGV[10], seed_sha256 = ARGV[11], early = 0, moved = 0,
    tickets = 0, waiting = 0, next = 1, active = 0,
    admitted = 0, claimed = 0, left = 0, no_shows = 0, expired = 0, away = 0,
    at = now_us, now = 0, credit = math.max(1, settings.rate / 4), swept = 0,
    pace = settings.rate, pulse_at = 0, pulse_admitted = 0,
    relayed = 0, relay = '', relay_until = 0, purged = 0, last_away = 0, cleared = 0, clear_at = 0,
  }
elseif room.mode == CLOSED then
  return {'closed'}
elseif settings.opens == nil then
  settings.opens = room.opens
elseif room.phase ~= EARLY then
  if settings.opens ~= 0 and settings.opens ~= room.opens then
    return {'opened'}
  end
  settings.opens = room.opens
elseif settings.opens == 0 then
  settings.opens = math.floor(now_us / 1000)
end
local raised = settings.max and settings.max > (room.max or settings.max)
for name, value in pairs(settings) do
  room[name] = value
end
advance()
-- The pace, from which waits are estimated, is at most the rate. It starts again from the rate if more tickets fit in or
-- nothing was moving, for the pace of the past says nothing then.
room.pace = math.min(room.pace, room.rate)
if raised or room.pace < 0.001 then
  room.pace = room.rate
end
-- All settings as protobuf, in the bytes that `event` would write. The second field is a double.
local function field(number, value)
  return string.char(number * 8) .. varint(value)
end
local body = field(1, room.max) .. string.char(2 * 8 + 1) .. struct.pack('<d', room.rate) .. field(3, room.claim)
  .. field(4, room.session) .. field(5, room.pass) .. field(6, room.grace)
if room.opens > 0 then
  body = body .. field(7, room.opens) .. encode(8, room.seed_sha256)
end
append(encode(SETTINGS_EVENT, body))
finish()
return {'ok'}
