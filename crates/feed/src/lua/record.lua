-- How a record of a feed is numbered, laid out, logged and published. All scripts that write a feed begin with this
-- file.
--
-- A record is the epoch (4 bytes), seq, time_us and prev_time_us (8 bytes each), all big-endian, then the payload.
-- record.rs reads the same layout.
--
-- A script publishes last: an error of SPUBLISH, for example for lack of rights, then comes after everything else is
-- done.
local RECORD_HEADER = '>I4I8I8I8'

-- The log is trimmed by age at every record whose number is a multiple of the first, by bytes at those of the second.
local TRIM_BY_AGE_EVERY, TRIM_BY_BYTES_EVERY = 64, 256

-- Returns the time of Redis, in microseconds since 1970.
local function clock_us()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end

-- Returns epoch, number and time of the next record, and the time of the record before it. `epoch`, `seq` and
-- `time_us` are those of the head; all are nil if the feed is new. A new feed draws its epoch from the caller's nonce
-- and the clock.
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

-- Returns a record as it is logged and published.
local function pack_record(epoch, seq, time_us, prev_us, payload)
  return struct.pack(RECORD_HEADER, epoch, seq, time_us, prev_us) .. payload
end

-- Drops the records that are older than max_age_us. Finds the first that is young enough by bisection over the
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

-- Adds a record to the log. A Redis without free memory adds nothing, and then nothing would ever be trimmed again:
-- so if the record cannot be added, the records that are older than max_age_us are dropped first (none if that is
-- nil).
local function log_record(log, max_entries, seq, time_us, record, max_age_us)
  if seq == 1 then
    -- A log that is there is of an earlier epoch, whose head was lost.
    redis.call('DEL', log)
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

-- Drops the oldest records until the log takes at most max_bytes.
local function trim_by_bytes(log, max_bytes)
  local entries = redis.call('XLEN', log)
  while entries > 1 do
    -- SAMPLES 0 counts all nodes. A sample would be of the oldest, which may be of another size than the newest.
    local bytes = redis.call('MEMORY', 'USAGE', log, 'SAMPLES', 0)
    if bytes <= max_bytes then
      return
    end
    -- The oldest may be small, so one cut may not be enough.
    entries = math.max(math.floor(entries * math.min(max_bytes / bytes * 0.9, 0.9)), 1)
    redis.call('XTRIM', log, 'MAXLEN', entries)
  end
end

-- Publishes a record. SPUBLISH reaches only the nodes of a Cluster and the subscribers of the feed's own hash slot.
local function publish(channel, record)
  redis.call('SPUBLISH', channel, record)
end

-- Trims the log now and then. A record that takes a large part of max_bytes has the log trimmed at once.
local function trim(log, seq, time_us, max_age_us, max_bytes, record)
  if seq % TRIM_BY_AGE_EVERY == 0 then
    trim_by_age(log, seq, time_us, max_age_us)
  end
  if seq % TRIM_BY_BYTES_EVERY == 0 or #record * TRIM_BY_BYTES_EVERY > max_bytes then
    trim_by_bytes(log, max_bytes)
  end
end
