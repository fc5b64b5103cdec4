-- ---- Lists ----

-- Whether an entry has not expired, and its fields are among the values in `tests`.
local function passes(entry)
  local expires = number(redis.call('HGET', entry, 'expires_at'))
  if expires and expires <= now then return false end
  for name, values in pairs(said.tests) do
    if not values[redis.call('HGET', entry, name)] then return false end
  end
  return true
end

-- Some entries of a list behind `after`, and behind which id to go on.
function operations.page()
  local list, border = key(said.list, said.of), said.newest_first and '+inf' or '-inf'
  if said.after then
    local seq = redis.call('ZSCORE', list, said.after)
    if not seq then return redis.error_reply('GONE') end
    border = '(' .. seq
  end
  local ids = said.newest_first and redis.call('ZREVRANGEBYSCORE', list, border, '-inf', 'LIMIT', 0, SCANNED)
    or redis.call('ZRANGEBYSCORE', list, border, '+inf', 'LIMIT', 0, SCANNED)
  local entries, last = {}, ''
  for _, id in ipairs(ids) do
    local entry = key(said.kind, id)
    if passes(entry) then
      if #entries == said.limit then return {entries, last} end
      entries[#entries + 1] = #said.names > 0 and redis.call('HMGET', entry, unpack(said.names))
        or redis.call('HGETALL', entry)
    end
    last = id
  end
  return {entries, #ids == SCANNED and last or ''}
end
