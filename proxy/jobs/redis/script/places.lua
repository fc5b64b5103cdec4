
-- ---- Where a job is ----
--
-- Rule: a job is in exactly one of `line` (claimable), `later` (queued, but not claimable yet), `leases` (running) and
-- `ends` (over); a queued one is in its caller's flow too, and in `deadlines` if it has one. Whoever puts it somewhere
-- takes it out first.

-- What separates ranks: more turns than ever will be.
local RANK = 1099511627776

local function flow(rank, caller) return key('flow', rank .. ':' .. caller) end

local function take_out(id)
  for _, place in ipairs({LINE, LATER, LEASES, ENDS, DEADLINES}) do redis.call('ZREM', place, id) end
  local job = fields(key('job', id), 'rank', 'caller')
  if job.rank then redis.call('ZREM', flow(job.rank, job.caller), id) end
end

-- Whether Redis has it. What was thrown away is nowhere any more, lest it stop others.
local function is_there(id)
  if redis.call('EXISTS', key('job', id)) == 1 then return true end
  take_out(id)
  return false
end

-- News for those who claim jobs of this rank.
local function tell_line(rank) tell(said.topics[whole(tonumber(rank))]) end

-- `job` has its rank, its caller and its turn, and a deadline or none.
local function queue_at(place, score, id, job)
  take_out(id)
  redis.call('HSET', key('job', id), 'state', 'queued', 'due', place == LATER and score or 0)
  redis.call('ZADD', place, score, id)
  redis.call('ZADD', flow(job.rank, job.caller), job.turn, id)
  if job.deadline then redis.call('ZADD', DEADLINES, job.deadline, id) end
  tell_line(job.rank) -- also if it is to come later: whoever waits has to know when
end

local function line_up(id, job) queue_at(LINE, whole(job.rank * RANK + job.turn), id, job) end

local function hold(id, lease)
  take_out(id)
  redis.call('HSET', key('job', id), 'state', 'running')
  redis.call('ZADD', LEASES, time(now + lease), id)
end

-- Lines of a batch have ended so, or with -1 have not.
local function count(batch, state, by)
  if batch and redis.call('EXISTS', key('batch', batch)) == 1 then
    redis.call('HINCRBY', key('batch', batch), 'ended:' .. state, by)
  end
end

local function finish(id, state)
  local job = fields(key('job', id), 'batch', 'keep')
  local expires = time(now + job.keep)
  take_out(id)
  redis.call('ZADD', ENDS, expires, id)
  redis.call('HSET', key('job', id), 'state', state, 'finished', time(now), 'expires_at', expires)
  count(job.batch, state, 1)
  tell(id, job.batch)
end

-- Behind the caller's own jobs, and level with the others' that come next: so callers take turns.
local function next_turn(rank, caller)
  local last = redis.call('ZREVRANGE', flow(rank, caller), 0, 0, 'WITHSCORES')[2]
  return 1 + math.max(number(redis.call('HGET', TURNS, rank)) or 0, number(last) or 0)
end

local function turn_came(id)
  local job = fields(key('job', id), 'rank', 'turn')
  local last = number(redis.call('HGET', TURNS, job.rank)) or 0
  if number(job.turn) > last then redis.call('HSET', TURNS, job.rank, whole(number(job.turn))) end
end

-- ---- Coming and going ----

local function lists_of(caller, batch)
  if batch then return {key('lines', batch)} end
  return {key('jobs'), key('jobs', caller)}
end

local function insert(job, body)
  local size = #body + OVERHEAD
  local seq, turn = add_total('seq', 1), next_turn(job.rank, job.caller)
  redis.call('HSET', key('job', job.id), 'seq', seq, 'turn', whole(turn), 'size', size, 'body', body,
    'fence', 0, 'attempts', 0, 'error', '', 'progress', '', unpack(job.fields))
  add_total('jobs', 1)
  add_total('bytes', size)
  for _, list in ipairs(lists_of(job.caller, job.batch)) do redis.call('ZADD', list, seq, job.id) end
  if job.key then redis.call('SET', key('key', job.caller .. ':' .. job.key), job.id) end
  line_up(job.id, {rank = job.rank, caller = job.caller, turn = turn, deadline = job.deadline})
end

local function forget(id)
  local job = fields(key('job', id), 'caller', 'batch', 'key', 'size')
  take_out(id)
  if not job.size then return end -- Redis has thrown it away
  for _, list in ipairs(lists_of(job.caller, job.batch)) do redis.call('ZREM', list, id) end
  if job.key then redis.call('DEL', key('key', job.caller .. ':' .. job.key)) end
  redis.call('DEL', key('job', id))
  add_total('jobs', -1)
  add_total('bytes', 0 - job.size)
end

local function start(id, lease)
  hold(id, lease)
  redis.call('HINCRBY', key('job', id), 'fence', 1)
  redis.call('HINCRBY', key('job', id), 'attempts', 1)
  redis.call('HSET', key('job', id), 'started', time(now))
end

-- ---- What time brings ----

-- Whoever runs jobs is heard thrice a lease. After a silence all of them may well be there, while this server was away
-- or its clock was set: they have time to renew what has ended.
local function hear()
  local heard = number(redis.call('GET', HEARD))
  redis.call('SET', HEARD, whole(now * 1000000))
  if not heard or now - heard / 1000000 <= said.lease / 2 then return end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', time(now))) do
    redis.call('ZADD', LEASES, time(now + said.lease / 3), id)
  end
end

-- Put back in line what is due: leases that ended, waits for another attempt that are over.
local function lapse()
  for _, place in ipairs({LEASES, LATER}) do
    for _, id in ipairs(due(place)) do
      if is_there(id) then
        local job = fields(key('job', id), 'rank', 'caller', 'turn', 'deadline', 'batch')
        line_up(id, job)
        tell(id, job.batch)
      end
    end
  end
end

-- End some of those that have not begun in time.
local function expire()
  local late = due(DEADLINES)
  for _, id in ipairs(late) do
    if is_there(id) then finish(id, 'expired') end
  end
  return #late
end

local function is_late(id) return (number(redis.call('HGET', key('job', id), 'deadline')) or now + 1) <= now end

-- Seconds until something may be claimable without news: a lease that others took may end after one of ours.
local function again()
  local first = said.lease
  for _, place in ipairs({LEASES, LATER}) do
    local next_due = redis.call('ZRANGE', place, 0, 0, 'WITHSCORES')[2]
    if next_due then first = math.min(first, math.max(0, next_due - now)) end
  end
  return time(first)
end
