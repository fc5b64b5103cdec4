
-- ---- Batches ----

function operations.add_batch()
  if redis.call('EXISTS', key('batch', said.id)) == 1 then return 1 end
  if not has_room(0, OVERHEAD) then return full() end
  keep_entry(BATCH)
  return 1
end

-- Change a batch whose state is one `among` these; `erased` are the fields that become nothing. The batch then.
function operations.advance()
  local batch = key('batch', said.id)
  if not is_found(batch) then return {} end
  local told = fields(batch, 'state', 'ticket')
  if told.ticket == said.ticket then return redis.call('HGETALL', batch) end
  if not said.among[told.state] then return {} end
  redis.call('HSET', batch, 'ticket', said.ticket)
  for name, value in pairs(said.changes) do redis.call('HSET', batch, name, value) end
  for _, name in ipairs(said.erased) do redis.call('HDEL', batch, name) end
  if said.to and said.to ~= told.state then redis.call('HSET', batch, 'state', said.to, 'at:' .. said.to, time(now)) end
  local expires = redis.call('HGET', batch, 'expires_at')
  if expires then
    redis.call('ZADD', key('batch_ends'), expires, said.id)
  else
    redis.call('ZREM', key('batch_ends'), said.id)
  end
  return redis.call('HGETALL', batch)
end

function operations.delete_batch()
  if not is_found(key('batch', said.id), said.caller) then return 0 end
  drop_entry(BATCH, said.id)
  return 1
end

function operations.forget_batches()
  local old = due(key('batch_ends'))
  for _, id in ipairs(old) do drop_entry(BATCH, id) end
  return #old
end
