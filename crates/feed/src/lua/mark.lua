-- Marks items of a mailbox as read, or deletes one, and tells of it.
--
-- ARGV: address, 'read', 'read-to' (that id, and all before it) or 'delete', id
-- Returns {-1} if there is no such item, else {1 if it changed anything, unread}.
local address, what, id = ARGV[9], ARGV[10], ARGV[11]
local now_us = clock_us()
local name, marks = key('box', address), key('marks', address)
load(address)
expire(now_us)

-- What is there up to the id, and not read.
local function unread_to()
  local found = {}
  for _, item in ipairs(call('LRANGE', name, 0, -1)) do
    local _, _, _, its = read_item(item)
    local wanted = its == id
    if (wanted or what == 'read-to') and not call('HGET', marks, its) then
      found[#found + 1] = its
    end
    if wanted then
      return found, item
    end
  end
end

-- Marks of what was deleted are forgotten when there are many more than items.
local function bound_marks()
  if call('HLEN', marks) <= 2 * KEEP_ITEMS + 64 then
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

-- Nothing changes. Who repeats what it was not told of writes all the same, or it would wait for no replica: WAIT
-- knows only of the last write of its own connection. Where there is no mailbox none is made.
local function same()
  if box.day > 0 then
    save(now_us)
  end
end

local unread, item = unread_to()
if not item then
  same()
  return {-1}
end
if what ~= 'delete' and #unread == 0 then
  same()
  return {0, math.max(box.unread, 0)}
end

begin_record(now_us)
local kind = READ
if what == 'delete' then
  kind = DELETED
  call('LREM', name, 1, item)
  forget(item)
  unread = {id}
else
  box.unread = box.unread - #unread
end
local ids = {}
for at, its in ipairs(unread) do
  call('HSET', marks, its, pack(MARK, kind, seq, time_us))
  ids[at] = pack('>I2c0', #its, its)
end
box.mark_seq, box.mark_us = seq, time_us
bound_marks()
box.made_a_key = true
save(now_us)
local text = table.concat(ids)
local record = pack_record(epoch, seq, time_us, prev_us, letter(kind, address, box.unread, '', text) .. text)
write_records({{seq, time_us, record}})
return {1, math.max(box.unread, 0)}
