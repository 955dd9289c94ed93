-- Keeps how far a source has come as a short history: the newest offset, and the one that was the newest a while ago.
--
-- KEYS: the history, a list of `time_us:offset`, oldest first.
-- ARGV: 'read' and a duration in microseconds; 'write' and an offset; or 'begin' and an offset, which clears the
--       history.
-- Returns for 'read' {the offset so long before the newest, the newest offset}, or nothing if there is no history;
--         for 'write' {1}, or nothing if the history has not begun; for 'begin' nothing.
local KEPT_ENTRIES = 128

local history, what = KEYS[1], ARGV[1]
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
if what == 'read' then
  local all = redis.call('LRANGE', history, 0, -1)
  if #all == 0 then
    return {}
  end
  -- The duration is counted back from the newest entry, not from now: the other data in Redis may date from then,
  -- too.
  local newest_us, newest = string.match(all[#all], '^(%d+):(%d+)$')
  local resume
  for at, entry in ipairs(all) do
    local time_us, offset = string.match(entry, '^(%d+):(%d+)$')
    if at == 1 or tonumber(time_us) <= newest_us - ARGV[2] then
      resume = offset
    end
  end
  return {resume, newest}
end
local entry = string.format('%d:%s', now_us, ARGV[2])
if what == 'begin' then
  redis.call('DEL', history)
  redis.call('RPUSH', history, entry)
  return {}
end
-- RPUSHX adds only to a list that exists: a Redis that came back empty must not take the newest offset for the first.
if redis.call('RPUSHX', history, entry) == 0 then
  return {}
end
redis.call('LTRIM', history, -KEPT_ENTRIES, -1)
return {1}
