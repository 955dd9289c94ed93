-- Reads a mailbox: all of it, what is later than a position of its feed, or a page of the newest items. Follows
-- mailbox.lua.
--
-- ARGV: address; how many bytes of items at most, about (0: no limit); then one of
--       'all';
--       'now', for no items;
--       'since', epoch, seq, time_us, where an epoch of '' is the position before the first record; for the rest of an
--       'all' that was begun, this is the position of the last item, and three further arguments are the position of
--       the feed at the beginning;
--       'page', id, seq, time_us, how many items at most, '1' for unread items alone. The page has the items before the
--       one at that position, or before the one with that id, or else before the position. Id, or position, or both may
--       be '': without either the page has the newest items.
-- Returns {epoch, seq and time_us of the last record of the feed ('' and 0 if there is none),
--         the number of unread items,
--         why 'since' cannot be answered, so that all is returned (or ''; 'unknown' for a page before an id that is not
--         there),
--         items, oldest first (of a page: newest first),
--         marks as a flat list of ids and marks (of a page: those of its items),
--         1 if there are more items,
--         when items that the mailbox might have were last lost (microseconds since 1970, or 0)}.
local CHUNK = 16

local address, max_bytes, mode = ARGV[FIRST_ARG], tonumber(ARGV[FIRST_ARG + 1]), ARGV[FIRST_ARG + 2]
local since_epoch, since_seq, since_us =
  ARGV[FIRST_ARG + 3], tonumber(ARGV[FIRST_ARG + 4]), tonumber(ARGV[FIRST_ARG + 5])
-- A reader that is shown all in parts lacks nothing that was missing before it began.
local begun_epoch, begun_seq, begun_us = since_epoch, since_seq, since_us
if mode == 'since' and ARGV[FIRST_ARG + 6] then
  begun_epoch, begun_seq, begun_us =
    ARGV[FIRST_ARG + 6], tonumber(ARGV[FIRST_ARG + 7]), tonumber(ARGV[FIRST_ARG + 8])
end
local now_us = clock_us()
local name = key('box', address)
load(address)
if expire(now_us, call('LLEN', name)) then
  save(now_us)
end

-- A larger number is later, and so is a later time: a failover may have given the numbers out again.
local function is_later(its_seq, its_us)
  return its_seq > since_seq or its_us > since_us
end
local function is_missed(its_seq, its_us)
  return its_seq > begun_seq or its_us > begun_us
end

-- Returns why what is later than the position is not all that the reader lacks, or ''.
local function why_incomplete()
  if begun_epoch ~= '' then
    if tonumber(epoch) ~= tonumber(begun_epoch) then
      return 'new_epoch'
    end
    if seq < begun_seq then
      return 'history_changed'
    end
    local id = string.format('%d-%d', begun_seq, begun_us)
    if #call('XRANGE', log, id, id) == 0 then
      local first = call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
      if first and tonumber(string.match(first[1], '^%d+')) <= begun_seq then
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
  reason = why_incomplete()
end

-- Returns the index of the first item of which `is` is true, by bisection: numbers and times only grow.
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

-- Takes items from an index on, up to max_bytes.
local function take_from(at, length)
  local bytes = 0
  while at < length do
    for _, item in ipairs(call('LRANGE', name, at, at + CHUNK - 1)) do
      items[#items + 1] = item
      bytes, at = bytes + #item, at + 1
      if max_bytes > 0 and bytes >= max_bytes and at < length then
        more = 1
        return
      end
    end
  end
end

-- Returns the index behind the last item before an id or a position; nothing if there is no such id and no position.
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
  -- An id may look like a position.
  if id ~= '' then
    for n, item in ipairs(call('LRANGE', name, 0, -1)) do
      local _, _, _, item_id = read_item(item)
      if item_id == id then
        return n - 1
      end
    end
  end
  return (its_seq or id == '') and at or nil
end

-- Takes a page of the items before an index, newest first. Reads of the list what the page needs, and a few items
-- more.
local function take_page(ends, limit, unread_alone)
  local marks_key, bytes = key('marks', address), 0
  while ends > 0 do
    local first = math.max(0, ends - math.min(CHUNK, limit + 1))
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
  local ends = end_of_page(length, ARGV[FIRST_ARG + 3], tonumber(ARGV[FIRST_ARG + 4]), tonumber(ARGV[FIRST_ARG + 5]))
  if ends then
    take_page(ends, tonumber(ARGV[FIRST_ARG + 6]), ARGV[FIRST_ARG + 7] == '1')
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
-- An older loss was of items that would have expired by now.
local lost_us = math.max(box.lost_us, tonumber(held[5]) or 0)
if lost_us < now_us - KEEP_US then
  lost_us = 0
end
return {epoch or '', string.format('%d', seq or 0), string.format('%d', time_us or 0), math.max(box.unread, 0), reason,
  items, marks, more, string.format('%d', lost_us)}
