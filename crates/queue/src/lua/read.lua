-- Reads a room without changing it.
--
-- ARGV, from 3: '1' to read also which tickets wait and which are inside.
-- Returns {'no_room'}, or {'ok', epoch, seq, time_us, the room as JSON, the longest wait in microseconds, the first place,
-- the bitmap of the waiting places from there on, the tickets inside}. Before the opening the bitmap is by ticket.
if not room then
  return {'no_room'}
end
local by_ticket = room.phase ~= OPENED
local first = by_ticket and 0 or math.floor(room.next / 8)
local waiting, active = '', {}
if ARGV[3] == '1' and room.mode ~= CLOSED then
  waiting = redis.call('GETRANGE', base .. (by_ticket and ':early' or ':waiting'), first, -1)
  active = redis.call('ZRANGE', base .. ':active', 0, -1)
end
local longest = 0
if room.waiting > 0 and room.mode ~= CLOSED then
  local at = redis.call('BITPOS', base .. (by_ticket and ':early' or ':waiting'), 1, first)
  local ticket = at >= 0 and read_ticket(by_ticket and at or ticket_at(at))
  longest = ticket and math.max(0, room.at - ticket[JOINED_AT]) or 0
end
return {'ok', tonumber(epoch), seq, time_us, cjson.encode(room), longest, first * 8, waiting, active}
