-- The numbers that stand for states on Redis. rooms/tags.rs compares them with the enums of Rust and of room.proto.

-- The state of a ticket. From LEFT on the ticket is gone, and the number is the reason.
local WAITING, ADMITTED, CLAIMED = 1, 2, 3
local LEFT, RELEASED, REMOVED, NO_SHOW, SESSION_OVER, AWAY = 11, 12, 13, 14, 15, 16
-- The mode of a room.
local OPEN, PAUSED, DRAINING, CLOSED = 0, 1, 2, 3
-- The phase of a room: no ticket has a place yet; places are being given out; every ticket has a place.
local EARLY, OPENING, OPENED = 0, 1, 2
-- The field numbers of the events in the protobuf message RoomEvent.
local JOINED_EVENT, ADMITTED_EVENT, CLAIMED_EVENT, GONE_EVENT = 1, 2, 3, 4
local SETTINGS_EVENT, MODE_EVENT, OPENED_EVENT, PULSE_EVENT = 5, 6, 7, 8
-- The fields of a ticket, which Redis keeps as a packed array:
--   STATE      the state
--   JOINED_AT  the time at which the ticket joined, by the clock of Redis, in microseconds since 1970
--   DEADLINE   while the ticket is inside, the end of the claim or session; once it is gone, the time since when; else 0
--   SEEN_AT    the room time of the last sign of life while the ticket waited
--   LISTED     1 while the ticket stands in one of the lists base:away:N
--   KEY        the idempotency key, 16 bytes
local STATE, JOINED_AT, DEADLINE, SEEN_AT, LISTED, KEY = 1, 2, 3, 4, 5, 6
