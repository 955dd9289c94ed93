-- Shared by all scripts that write a feed: how a record is numbered, laid out and logged. A script
-- publishes it last: an error then, as of missing rights, comes after all else is done. record.rs reads the same layout; the tests hold both to the same bytes.
--
-- Record: epoch (4 bytes), seq, time_us, prev_time_us (8 each), all big-endian, then the payload.

-- Redis's clock, microseconds since 1970.
local function clock_us()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end

-- The number and time of the next record, after the head's epoch, seq and time (nil if the feed
-- is new: then an epoch is drawn, from what the caller drew and from the clock), at now_us.
local function next_record(epoch, seq, time_us, nonce, now_us)
  if not epoch then
    local drawn = string.sub(redis.sha1hex(string.format('%s.%d', nonce, now_us)), 1, 8)
    return tonumber(drawn, 16), 1, now_us, 0
  end
  local prev_us = tonumber(time_us)
  if now_us <= prev_us then
    now_us = prev_us + 1
  end
  return tonumber(epoch), seq + 1, now_us, prev_us
end

-- A record as it is logged and published.
local function pack_record(epoch, seq, time_us, prev_us, payload)
  return struct.pack('>I4I8I8I8', epoch, seq, time_us, prev_us) .. payload
end

-- Drops what is older than max_age_us; the first entry young enough is found by bisection over the
-- numbers.
local function trim_by_age(log, seq, time_us, max_age_us)
  local function entry_at(n)
    local id = redis.call('XRANGE', log, n, '+', 'COUNT', 1)[1][1]
    local s, t = string.match(id, '^(%d+)-(%d+)$')
    return tonumber(s), tonumber(t)
  end
  local first = entry_at('-')
  local low, high = first, seq
  while low < high do
    local middle = math.floor((low + high) / 2)
    local s, t = entry_at(string.format('%d', middle))
    if t < time_us - max_age_us then
      low = s + 1
    else
      high = middle
    end
  end
  if low > first then
    redis.call('XTRIM', log, 'MINID', string.format('%d', low))
  end
end

-- Where Redis has no memory left it adds nothing, and without that nothing would ever go again: what is older
-- than max_age_us (nil: nothing is) goes first then.
local function log_record(log, max_entries, seq, time_us, record, max_age_us)
  if seq == 1 then
    redis.call('DEL', log) -- of an earlier epoch, whose head was lost
  end
  local id = string.format('%d-%d', seq, time_us)
  local added = redis.pcall('XADD', log, 'MAXLEN', '~', max_entries, id, 'r', record)
  if type(added) == 'string' then
    return
  end
  if max_age_us and redis.call('XLEN', log) > 0 then
    trim_by_age(log, seq - 1, time_us, max_age_us)
  end
  redis.call('XADD', log, 'MAXLEN', '~', max_entries, id, 'r', record)
end

-- Drops as much as brings the log under max_bytes.
local function trim_by_bytes(log, max_bytes)
  local entries = redis.call('XLEN', log)
  while entries > 1 do
    -- All nodes: a sample would be of the oldest, which may be of another size than the newest.
    local bytes = redis.call('MEMORY', 'USAGE', log, 'SAMPLES', 0)
    if bytes <= max_bytes then
      return
    end
    -- The oldest may be small, and the next cut is of what is left.
    entries = math.max(math.floor(entries * math.min(max_bytes / bytes * 0.9, 0.9)), 1)
    redis.call('XTRIM', log, 'MAXLEN', entries)
  end
end

-- To who follows: in a Cluster only nodes and clients of the feed's own hash slot hear of it.
local function publish(channel, record)
  redis.call('SPUBLISH', channel, record)
end

-- By age every 64th record; by bytes every 256th, and after each that is large.
local function trim(log, seq, time_us, max_age_us, max_bytes, record)
  if seq % 64 == 0 then
    trim_by_age(log, seq, time_us, max_age_us)
  end
  if seq % 256 == 0 or #record * 256 > max_bytes then
    trim_by_bytes(log, max_bytes)
  end
end
