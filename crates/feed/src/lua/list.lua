-- Reads a mailbox: all of it, what is later than a place in its feed, or a page of the newest items.
--
-- ARGV: address, about how many bytes of items at most (0: all), then 'all', 'now' (no items) or 'since'
--       and a place: epoch, seq, time_us; an epoch of '' is the place before the first record. For the
--       rest of what was begun as 'all', the items' place, and then the feed's as of the beginning.
--       For 'page': an id and a place (seq, time_us), of which either or both may be ''; how many items at
--       most; and '1' for unread items alone. The page has what is before the item at that place, or with
--       that id, or else before the place; the newest where both are ''.
-- Returns {the feed's epoch, seq, time_us (nothing where there is no record yet), unread, why the place
--       is of no use and all is told (or ''; 'unknown' for a page before an id that is not there), items,
--       oldest first but those of a page newest first, marks as a flat list of ids and marks (of a page
--       those of its items), 1 if there are more items, when items were last lost for good that it might
--       have (microseconds since 1970, or 0)}.
local address, max_bytes, mode = ARGV[9], tonumber(ARGV[10]), ARGV[11]
local since_epoch, since_seq, since_us = ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14])
-- What is missing since then is missed.
local whole_epoch, whole_seq, whole_us = since_epoch, since_seq, since_us
if mode == 'since' and ARGV[15] then
  whole_epoch, whole_seq, whole_us = ARGV[15], tonumber(ARGV[16]), tonumber(ARGV[17])
end
local now_us = clock_us()
local name = key('box', address)
load(address)
if expire(now_us, call('LLEN', name)) then
  save(now_us)
end

-- A larger number is later; so is a later time, for a failover may have given the numbers anew.
local function is_later(its_seq, its_us)
  return its_seq > since_seq or its_us > since_us
end
local function is_missed(its_seq, its_us)
  return its_seq > whole_seq or its_us > whole_us
end

-- Why what is later than the place is not all that it lacks.
local function why_not()
  if whole_epoch ~= '' then
    if tonumber(epoch) ~= tonumber(whole_epoch) then
      return 'new_epoch'
    end
    if seq < whole_seq then
      return 'history_changed'
    end
    local id = string.format('%d-%d', whole_seq, whole_us)
    if #call('XRANGE', log, id, id) == 0 then
      local first = call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
      if first and tonumber(string.match(first[1], '^%d+')) <= whole_seq then
        return 'history_changed'
      end
    end
  end
  if held[4] and is_missed(tonumber(held[4]), tonumber(held[5])) then
    return 'gap'
  end
  if is_missed(box.cut_seq, box.cut_us) then
    return 'too_old'
  end
  return ''
end

local reason, items, marks, more = '', {}, {}, 0
if mode == 'since' then
  reason = why_not()
end

-- Where the items begin of which this is true: numbers and times only grow.
local function first_that(is, length)
  local low, high = 0, length
  if length > 0 and not is(read_item(call('LINDEX', name, -1))) then
    return length
  end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is(read_item(call('LINDEX', name, middle))) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local function take_from(at, length)
  local bytes = 0
  while at < length do
    for _, item in ipairs(call('LRANGE', name, at, at + 15)) do
      items[#items + 1] = item
      bytes, at = bytes + #item, at + 1
      if max_bytes > 0 and bytes >= max_bytes and at < length then
        more = 1
        return
      end
    end
  end
end

-- Where the items end that are before an id or a place; nothing if there is no such id, and no place.
local function end_of_page(length, id, its_seq, its_us)
  local at = length
  if its_seq then
    at = first_that(function(seq, us) return seq > its_seq or (seq == its_seq and us >= its_us) end, length)
    local item = call('LINDEX', name, at)
    if item then
      local seq, us = read_item(item)
      if seq == its_seq and us == its_us then
        return at
      end
    end
  end
  -- An id may look like a place.
  if id ~= '' then
    for n, item in ipairs(call('LRANGE', name, 0, -1)) do
      local _, _, _, its = read_item(item)
      if its == id then
        return n - 1
      end
    end
  end
  return (its_seq or id == '') and at or nil
end

-- Reads what the page needs of the list, and a few items more.
local function take_page(ends, limit, unread_alone)
  local marks_key, bytes = key('marks', address), 0
  while ends > 0 do
    local first = math.max(0, ends - math.min(16, limit + 1))
    local part = call('LRANGE', name, first, ends - 1)
    for at = #part, 1, -1 do
      local item = part[at]
      local _, _, _, id = read_item(item)
      local mark = call('HGET', marks_key, id)
      if not (mark and unread_alone) then
        if #items >= limit or (#items > 0 and max_bytes > 0 and bytes + #item > max_bytes) then
          more = 1
          return
        end
        items[#items + 1], bytes = item, bytes + #item
        if mark then
          marks[#marks + 1], marks[#marks + 2] = id, mark
        end
      end
    end
    ends = first
  end
end

local length = call('LLEN', name)
if mode == 'page' then
  local ends = end_of_page(length, ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14]))
  if ends then
    take_page(ends, tonumber(ARGV[15]), ARGV[16] == '1')
  else
    reason = 'unknown'
  end
elseif mode == 'all' or reason ~= '' then
  take_from(0, length)
  marks = call('HGETALL', key('marks', address))
elseif mode == 'since' then
  take_from(first_that(is_later, length), length)
  if is_later(box.mark_seq, box.mark_us) then
    marks = call('HGETALL', key('marks', address))
  end
end
-- A loss that is older is not of anything that would still be here.
local lost_us = math.max(box.lost_us, tonumber(held[5]) or 0)
if lost_us < now_us - KEEP_US then
  lost_us = 0
end
return {epoch or '', string.format('%d', seq or 0), string.format('%d', time_us or 0), math.max(box.unread, 0), reason,
  items, marks, more, string.format('%d', lost_us)}
