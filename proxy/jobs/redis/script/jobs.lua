
-- ---- Jobs ----

local function job_of(id) return redis.call('HGETALL', key('job', id)) end

-- The job, if it is this caller's and has not expired.
local function found(id, caller)
  if not is_found(key('job', id), caller) then return nil end
  return fields(key('job', id), 'state', 'caller', 'rank', 'batch')
end

-- The job, if this is the newest claim of it; without a state if not.
local function ours(claim)
  local job = fields(key('job', claim.id), 'state', 'fence', 'rank', 'caller', 'turn', 'started', 'deadline', 'batch')
  if number(job.fence) ~= claim.fence then return {} end
  return job
end

-- Whether it runs; also if its lease has ended since, and nobody has claimed it anew.
local function is_held(job) return job.state == 'running' or (job.state == 'queued' and job.started) end

local function is_end(state) return state ~= 'queued' and state ~= 'running' end

function operations.add()
  local bytes, fresh = 0, {}
  for i, job in ipairs(said.jobs) do
    if redis.call('EXISTS', key('job', job.id)) == 0 then
      bytes = bytes + #ARGV[1 + i] + OVERHEAD
      fresh[#fresh + 1] = i
    end
  end
  if not said.is_owed and not has_room(#fresh, bytes) then return full() end
  for _, i in ipairs(fresh) do insert(said.jobs[i], ARGV[1 + i]) end
  return 1
end

-- Whether it is new, and the job. Said twice it is new twice.
function operations.find_or_add()
  local job = said.job
  local known = redis.call('GET', key('key', job.caller .. ':' .. job.key))
  if known and is_found(key('job', known)) then
    if redis.call('HGET', key('job', known), 'fingerprint') ~= said.fingerprint then
      return redis.error_reply('REUSED')
    end
    return {known == job.id and 1 or 0, job_of(known)}
  end
  if not has_room(1, #ARGV[2] + OVERHEAD) then return full() end
  if known then forget(known) end
  insert(job, ARGV[2])
  if said.lease then start(job.id, said.lease) end
  return {1, job_of(job.id)}
end

function operations.get() return found(said.id, said.caller) and job_of(said.id) or {} end

-- Some lines of a batch behind `seq`, with their answers, and where the next ones begin.
function operations.lines()
  local told = redis.call('ZRANGEBYSCORE', key('lines', said.batch), '(' .. said.seq, '+inf', 'WITHSCORES',
    'LIMIT', 0, said.most)
  local jobs = {}
  for i = 1, #told, 2 do
    if is_there(told[i]) then jobs[#jobs + 1] = job_of(told[i]) end
  end
  return {jobs, told[#told] or ''}
end

function operations.position()
  local job = fields(key('job', said.id), 'state', 'rank', 'turn')
  if job.state ~= 'queued' then return -1 end
  local ahead = redis.call('ZRANK', LINE, said.id)
  return ahead or redis.call('ZCOUNT', LINE, '-inf', '(' .. whole(job.rank * RANK + job.turn))
end

function operations.claim()
  hear()
  lapse()
  local has_more = expire() == SLICE
  local first, behind = whole(said.first * RANK), '(' .. whole((said.last + 1) * RANK)
  local jobs = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LINE, first, behind, 'LIMIT', 0, said.most)) do
    if not is_there(id) then
      has_more = true
    elseif is_late(id) then
      finish(id, 'expired')
    else
      start(id, said.lease)
      turn_came(id)
      jobs[#jobs + 1] = job_of(id)
      tell(id)
    end
  end
  return {has_more and '0' or again(), jobs}
end

-- Which of the claims are lost.
function operations.renew()
  hear()
  local lost = {}
  for _, claim in ipairs(said.claims) do
    if is_held(ours(claim)) then hold(claim.id, said.lease) else lost[#lost + 1] = claim.id end
  end
  return lost
end

function operations.note()
  local job = ours(said.claim)
  if not is_held(job) then return 0 end
  redis.call('HSET', key('job', said.claim.id), 'progress', said.progress)
  tell(said.claim.id, job.batch)
  return 1
end

-- ARGV[2] is the answer, if there is one.
function operations.finish()
  local id, job = said.claim.id, ours(said.claim)
  if job.state == said.state then return 1 end
  if not is_held(job) then return 0 end
  if ARGV[2] then
    redis.call('HSET', key('job', id), 'answer', ARGV[2], 'status', said.status, 'content_type', said.content_type)
    redis.call('HINCRBY', key('job', id), 'size', #ARGV[2])
    add_total('bytes', #ARGV[2])
  end
  redis.call('HSET', key('job', id), 'error', said.error)
  finish(id, said.state)
  return 1
end

-- Queue it where it was, for `due` or for now.
function operations.put_back()
  local id, job = said.claim.id, ours(said.claim)
  if not is_held(job) then return 0 end
  redis.call('HDEL', key('job', id), 'started')
  redis.call('HSET', key('job', id), 'error', said.error)
  redis.call('HINCRBY', key('job', id), 'attempts', 0 - said.uncounted) -- Lua's -0 is no number to Redis
  if said.due then queue_at(LATER, time(said.due), id, job) else line_up(id, job) end
  tell(id, job.batch)
  return 1
end

-- Its state then.
function operations.cancel()
  local job = found(said.id, said.caller)
  if not job then return '' end
  if is_end(job.state) then return job.state end
  finish(said.id, 'cancelled')
  return 'cancelled'
end

-- Its state then.
function operations.retry()
  local id, job = said.id, found(said.id, said.caller)
  if not job then return '' end
  if not is_end(job.state) or job.state == 'done' then return job.state end
  local this, turn = key('job', id), next_turn(job.rank, job.caller)
  local answer = redis.call('HSTRLEN', this, 'answer')
  redis.call('HDEL', this, 'started', 'finished', 'expires_at', 'deadline', 'status', 'content_type', 'answer')
  redis.call('HSET', this, 'attempts', 0, 'error', '', 'progress', '', 'turn', whole(turn))
  redis.call('HINCRBY', this, 'size', 0 - answer)
  add_total('bytes', 0 - answer)
  count(job.batch, job.state, -1)
  line_up(id, {rank = job.rank, caller = job.caller, turn = turn})
  tell(id, job.batch)
  return 'queued'
end

-- The job, running; nothing if it ran or was done.
function operations.claim_one()
  if operations.retry() ~= 'queued' then return {} end
  start(said.id, said.lease)
  tell(said.id, redis.call('HGET', key('job', said.id), 'batch'))
  return job_of(said.id)
end

function operations.delete()
  local job = found(said.id, said.caller)
  if not job or not is_end(job.state) then return 0 end
  forget(said.id)
  return 1
end

-- `move` some lines of a batch behind `seq`, if they want to be. Returns how many were, and where the next ones begin.
local function some_lines(move)
  local told = redis.call('ZRANGEBYSCORE', key('lines', said.batch), '(' .. said.seq, '+inf', 'WITHSCORES',
    'LIMIT', 0, SLICE)
  local moved = 0
  for i = 1, #told, 2 do
    if move(told[i], redis.call('HGET', key('job', told[i]), 'state')) then moved = moved + 1 end
  end
  return {moved, told[#told] or ''}
end

function operations.cancel_lines()
  return some_lines(function(id, state)
    if state == 'queued' then finish(id, 'cancelled') end
    return state == 'queued'
  end)
end

function operations.delete_lines()
  return some_lines(function(id, state)
    if is_end(state) then forget(id) end
    return is_end(state)
  end)
end

function operations.expire() return expire() end

function operations.forget()
  local old = due(ENDS)
  for _, id in ipairs(old) do forget(id) end
  return #old
end

function operations.state()
  local total, border = fields(TOTAL, 'jobs', 'bytes'), whole(said.batch_rank * RANK)
  return {
    redis.call('ZCOUNT', LINE, '-inf', '(' .. border), redis.call('ZCOUNT', LINE, border, '+inf'),
    redis.call('ZCARD', LATER), redis.call('ZCARD', LEASES), number(total.jobs) or 0, number(total.bytes) or 0,
  }
end
