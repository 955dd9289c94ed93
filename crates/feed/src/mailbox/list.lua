-- Reads a mailbox: all of it, or what is later than a place in its feed.
--
-- ARGV: address, then 'all', 'now' (no items) or 'since' and a place: epoch, seq, time_us; an epoch of ''
--       is the place before the first record.
-- Returns {the feed's epoch, seq, time_us (nothing where there is no record yet), unread, why the place
--       is of no use and all is told (or ''), items, marks as a flat list of ids and marks}.
local address, mode = ARGV[9], ARGV[10]
local since_epoch, since_seq, since_us = ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13])
local now_us = clock_us()
local name = key('box', address)
local box = load(address)
if expire(box, now_us) then
  save(box, now_us)
end

-- A larger number is later; so is a later time, for a failover may have given the numbers anew.
local function is_later(its_seq, its_us)
  return its_seq > since_seq or its_us > since_us
end

-- Why what is later than the place is not all that it lacks.
local function why_not()
  if since_epoch ~= '' then
    if tonumber(epoch) ~= tonumber(since_epoch) then
      return 'new_epoch'
    end
    if seq < since_seq then
      return 'history_changed'
    end
    local id = string.format('%d-%d', since_seq, since_us)
    if #call('XRANGE', log, id, id) == 0 then
      local first = call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
      if first and tonumber(string.match(first[1], '^%d+')) <= since_seq then
        return 'history_changed'
      end
    end
  end
  if held[4] and is_later(tonumber(held[4]), tonumber(held[5])) then
    return 'gap'
  end
  if is_later(box.cut_seq, box.cut_us) then
    return 'too_old'
  end
  return ''
end

local reason, items, marks = '', {}, {}
if mode == 'since' then
  reason = why_not()
end
if mode == 'all' or reason ~= '' then
  items = call('LRANGE', name, 0, -1)
  marks = call('HGETALL', key('marks', address))
elseif mode == 'since' then
  -- From the newest on, until one is not later.
  local length, at = call('LLEN', name), 0
  while at < length do
    local part = call('LRANGE', name, -at - 16, -at - 1)
    for n = #part, 1, -1 do
      local its_seq, its_us = read_item(part[n])
      if not is_later(its_seq, its_us) then
        length = 0
        break
      end
      table.insert(items, 1, part[n])
    end
    at = at + 16
  end
  if is_later(box.mark_seq, box.mark_us) then
    marks = call('HGETALL', key('marks', address))
  end
end
return {epoch or '', string.format('%d', seq or 0), string.format('%d', time_us or 0), math.max(box.unread, 0), reason,
  items, marks}
