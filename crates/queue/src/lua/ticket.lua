-- Gets, claims, renews, leaves or removes a ticket.
--
-- ARGV, from 3: get, claim, renew, leave or remove; the number of the ticket; its epoch and the time at which it joined
-- (both may be empty for remove).
-- Returns a ticket_reply, or a refusal: no_room, closed, no_ticket, not_admitted, gone.
if not room then
  return {'no_room'}
elseif room.mode == CLOSED then
  return {'closed'}
end
local action, n = ARGV[3], tonumber(ARGV[4])
local ticket = read_ticket(n)
-- If Redis forgot a number in a failover and gave it out again, it belongs to another visitor.
local same = action == 'remove'
  or (ARGV[5] == tostring(epoch) and ticket and ARGV[6] == string.format('%d', ticket[JOINED_AT]))
if not ticket or not same then
  return {'no_ticket'}
end
advance()

local state = ticket[STATE]
if state > CLAIMED then
  if action == 'claim' or action == 'renew' then
    return {'gone'}
  end
elseif action == 'get' then
  note_sign_of_life(n, ticket)
elseif action == 'leave' then
  end_ticket(n, ticket, state == WAITING and LEFT or RELEASED)
elseif action == 'remove' then
  end_ticket(n, ticket, REMOVED)
elseif state == WAITING then
  return {'not_admitted'}
else
  local first = state == ADMITTED
  if first or action == 'renew' then
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
return ticket_reply(n, ticket)
