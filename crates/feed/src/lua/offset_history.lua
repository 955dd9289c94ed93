-- Where a source stands, as a short history: the newest place, and the one that was the newest a while ago.
--
-- KEYS: the history
-- ARGV: 'write', offset, or 'read', how long before that (microseconds), or 'begin', offset (what was before is void)
-- Returns, to 'read', {offset then, newest offset}, or nothing; to 'write', {1}, or nothing where it has not begun.
local KEEP = 128
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
if ARGV[1] == 'read' then
  local all = redis.call('LRANGE', KEYS[1], 0, -1)
  if #all == 0 then
    return {}
  end
  -- Counted from the newest: what else is in Redis may have been away since then.
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
if ARGV[1] == 'begin' then
  redis.call('DEL', KEYS[1])
  redis.call('RPUSH', KEYS[1], entry)
  return {}
end
-- A Redis that came back empty must not take the newest place for the first.
if redis.call('RPUSHX', KEYS[1], entry) == 0 then
  return {}
end
redis.call('LTRIM', KEYS[1], -KEEP, -1)
return {1}
