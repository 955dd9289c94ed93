-- What happens to one ticket; follows record.lua and room.lua.
--
-- ARGV, from 3: see, claim, renew, leave or remove; the ticket's number, its epoch and the time it
-- joined (to remove, both may be empty).
-- Returns what `tell` tells, or a word: no_room, closed, no_ticket, not_admitted, gone.
if not room then
  return {'no_room'}
elseif room.mode == CLOSED then
  return {'closed'}
end
local what, n = ARGV[3], tonumber(ARGV[4])
local ticket = read_ticket(n)
-- A number that was forgotten in a failover and given out again is another's.
local same = what == 'remove' or (ARGV[5] == tostring(epoch) and ticket and ARGV[6] == string.format('%d', ticket[JOINED_AT]))
if not ticket or not same then
  return {'no_ticket'}
end
advance()

local state = ticket[STATE]
if state > CLAIMED then
  if what == 'claim' or what == 'renew' then
    return {'gone'}
  end
elseif what == 'see' then
  see(n, ticket)
elseif what == 'leave' then
  go(n, ticket, state == WAITING and LEFT or RELEASED)
elseif what == 'remove' then
  go(n, ticket, REMOVED)
elseif state == WAITING then
  return {'not_admitted'}
else
  local first = state == ADMITTED
  if first or what == 'renew' then
    local until_ms = set_deadline(n, ticket, room.session)
    ticket[STATE] = CLAIMED
    write_ticket(n, ticket)
    if first then
      room.claimed = room.claimed + 1
      append(event(CLAIMED_EVENT, n, until_ms))
    end
  end
end
finish()
return tell(n, ticket)
