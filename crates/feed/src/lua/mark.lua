-- Marks items of a mailbox as read, or deletes one, and publishes a record about it. Follows mailbox.lua.
--
-- ARGV: address; 'read', 'read-to' (the item and all before it) or 'delete'; id.
-- Returns {NO_ITEM}, {UNCHANGED, unread} or {CHANGED, unread}.
local NO_ITEM, UNCHANGED, CHANGED = -1, 0, 1
-- A mailbox keeps this many marks beside twice its items.
local SPARE_MARKS = 64

local address, what, id = ARGV[FIRST_ARG], ARGV[FIRST_ARG + 1], ARGV[FIRST_ARG + 2]
local now_us = clock_us()
local name, marks = key('box', address), key('marks', address)
load(address)
expire(now_us)

-- Returns the ids that are to be marked as read, and the item with the id. Returns nothing if there is no such item.
local function unread_to()
  local found = {}
  for _, item in ipairs(call('LRANGE', name, 0, -1)) do
    local _, _, _, item_id = read_item(item)
    local is_wanted = item_id == id
    if (is_wanted or what == 'read-to') and not call('HGET', marks, item_id) then
      found[#found + 1] = item_id
    end
    if is_wanted then
      return found, item
    end
  end
end

-- Drops the older half of the marks of deleted items, once there are many more marks than items.
local function bound_marks()
  if call('HLEN', marks) <= 2 * KEEP_ITEMS + SPARE_MARKS then
    return
  end
  local deleted = {}
  local all = call('HGETALL', marks)
  for at = 1, #all, 2 do
    local kind, mark_seq, mark_us = unpack(MARK, all[at + 1])
    if kind == DELETED then
      deleted[#deleted + 1] = {mark_seq, mark_us, all[at]}
    end
  end
  table.sort(deleted, function(a, b) return a[1] < b[1] end)
  for at = 1, math.ceil(#deleted / 2) do
    call('HDEL', marks, deleted[at][3])
    box.cut_seq, box.cut_us = math.max(box.cut_seq, deleted[at][1]), math.max(box.cut_us, deleted[at][2])
  end
end

-- Ends a call that changes nothing. It writes all the same where there is a mailbox: WAIT knows only of the last
-- write of its own connection, so a caller that repeats a call whose answer it missed would wait for no replica.
local function change_nothing()
  if box.day > 0 then
    save(now_us)
  end
end

local unread, item = unread_to()
if not item then
  change_nothing()
  return {NO_ITEM}
end
if what ~= 'delete' and #unread == 0 then
  change_nothing()
  return {UNCHANGED, math.max(box.unread, 0)}
end

begin_record(now_us)
local kind, marked = READ, unread
if what == 'delete' then
  kind, marked = DELETED, {id}
  call('LREM', name, 1, item)
  forget(item)
else
  box.unread = box.unread - #unread
end
local ids = {}
for at, marked_id in ipairs(marked) do
  call('HSET', marks, marked_id, pack(MARK, kind, seq, time_us))
  ids[at] = pack('>I2c0', #marked_id, marked_id)
end
box.mark_seq, box.mark_us = seq, time_us
bound_marks()
box.made_a_key = true
save(now_us)
local payload = table.concat(ids)
local record = pack_record(epoch, seq, time_us, prev_us, letter(kind, address, box.unread, '', payload) .. payload)
write_records({{seq, time_us, record}})
return {CHANGED, math.max(box.unread, 0)}
