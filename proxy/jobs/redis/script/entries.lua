
-- ---- Lists of jobs, files and batches ----

-- Whether an entry has not expired, and its fields are among the values in `tests`.
local function passes(entry)
  if not is_found(entry) then return false end
  for name, values in pairs(said.tests) do
    if not values[redis.call('HGET', entry, name)] then return false end
  end
  return true
end

-- Some ids of a list behind `after`; nil if that is not in it.
local function ids_of(list)
  local border = said.newest_first and '+inf' or '-inf'
  if said.after then
    local seq = redis.call('ZSCORE', list, said.after)
    if not seq then return nil end
    border = '(' .. seq
  end
  if said.newest_first then
    return redis.call('ZREVRANGEBYSCORE', list, border, '-inf', 'LIMIT', 0, SCANNED)
  end
  return redis.call('ZRANGEBYSCORE', list, border, '+inf', 'LIMIT', 0, SCANNED)
end

-- Some entries, and behind which id to go on.
function operations.page()
  local ids = ids_of(key(said.list, said.of))
  if not ids then return redis.error_reply('GONE') end
  local entries, last = {}, ''
  for _, id in ipairs(ids) do
    local entry = key(said.kind, id)
    if passes(entry) then
      if #entries == said.limit then return {entries, last} end
      entries[#entries + 1] = redis.call('HMGET', entry, unpack(said.names))
    end
    last = id
  end
  return {entries, #ids == SCANNED and last or ''}
end

-- ---- Files and batches, of which only the names of their keys differ ----

local FILE = {entry = 'file', list = 'files', ends = 'file_ends'}
local BATCH = {entry = 'batch', list = 'batches', ends = 'batch_ends'}

local function keep_entry(kind)
  local entry, seq = key(kind.entry, said.id), add_total('seq', 1)
  redis.call('HSET', entry, unpack(said.fields))
  redis.call('ZADD', key(kind.list), seq, said.id)
  redis.call('ZADD', key(kind.list, said.caller), seq, said.id)
  if said.expires_at then redis.call('ZADD', key(kind.ends), said.expires_at, said.id) end
end

local function drop_entry(kind, id)
  local caller = redis.call('HGET', key(kind.entry, id), 'caller')
  redis.call('ZREM', key(kind.list), id)
  redis.call('ZREM', key(kind.list, caller), id)
  redis.call('ZREM', key(kind.ends), id)
  redis.call('DEL', key(kind.entry, id))
end

function operations.entry()
  local entry = key(said.kind, said.id)
  return is_found(entry, said.caller) and redis.call('HGETALL', entry) or {}
end
