-- The limits of one account as Redis keeps them: one operation of one limiter, atomic.
--
-- Rule 1: times are microseconds of this server's clock; nobody else's counts.
-- Rule 2: a call may be in flight if its ticket has a lease; leases are given in the order of asking, by `serve` alone.
-- Rule 3: one ticket at a time holds the pace: it may be sent from its slot on until its end, and the next slot is an
--         interval after it was sent. Who does not say when it was sent is taken to have been sent at the end.
-- Rule 4: every operation may be said twice; what was done already is not done again.
--
-- Rule 5: a replica that is there is heard every third of `alive` at least. After a longer silence leases may have ended
--         under calls that go on, since nobody could reach this server, or its clock was set.
--
-- KEYS      state     hash: the fields below; whole numbers, 0 for none
--           leases    sorted set: ticket -> when the lease ends unless it is renewed
--           waiting   sorted set: ticket -> its turn
--           replicas  sorted set: replica -> until when it counts as alive
--           overrides hash: what operators set; `revision`, `interval`, `bound` and `held` are for here, the rest for
--                     replicas, see shared_overrides.py
-- ARGV[1]   what the replica says, as JSON
-- Returns   a reply (see `told`); wire.py reads it
--
-- A ticket is replica:number:lead:window. `lead` is how long before its slot the replica must know of it, `window` for
-- how long it may be sent: so that whoever gives it a slot knows. A replica is link-number: messages for it go to its
-- link's channel.

local STATE, LEASES, WAITING, REPLICAS, OVERRIDES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local FIELDS = {
  'epoch', -- when this state began; another one means that data may be lost
  'server', -- which run of the server it began in
  'at', -- when it was last used
  'opens', -- nobody gets anything new before: those who hold leases tell of them first
  'next', -- the next free pace slot, if nobody holds the pace
  'slot', 'ends', -- from when until when the holder of the pace may be sent
  'pause', -- the end of the pause that the upstream asked for
  'turn', -- the last turn given to one who waits
  'allowed', 'failed_at', 'run', 'successes', 'cut_at', -- as in local.py's Ceiling; allowed 0: the setting holds
  'strikes', -- 429s in a row without Retry-After
}

local said = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local state, before = {}, {}
local holder -- of the pace: a ticket, '' for none
local setting = {interval = said.interval, concurrency = said.concurrency}
local revision, is_held -- of the overrides; whether operators let nobody go
local given = {} -- tickets that were given something by this operation

local function live(key) redis.call('PEXPIRE', key, said.life) end

local function read()
  local values = redis.call('HMGET', STATE, 'holder', unpack(FIELDS))
  for i, field in ipairs(FIELDS) do
    before[field] = tonumber(values[i + 1] or '') or 0
    state[field] = before[field]
  end
  before.holder = values[1] or ''
  holder = before.holder
end

-- What operators set outranks what the replica says, whether it has heard of that or not.
local function obey()
  local set = redis.call('HMGET', OVERRIDES, 'revision', 'interval', 'bound', 'held')
  revision = tonumber(set[1] or '') or 0
  said.interval = tonumber(set[2] or '') or setting.interval
  said.concurrency = tonumber(set[3] or '') or setting.concurrency
  is_held = set[4] ~= false
end

local function save()
  local changed = {}
  for _, field in ipairs(FIELDS) do
    if state[field] ~= before[field] then
      changed[#changed + 1] = field
      changed[#changed + 1] = string.format('%.0f', state[field])
    end
  end
  if holder ~= before.holder then
    changed[#changed + 1] = 'holder'
    changed[#changed + 1] = holder
  end
  if #changed > 0 then redis.call('HSET', STATE, unpack(changed)) end
  if before.epoch == 0 then live(STATE) end
end

-- How many may be in flight; nil: no bound.
local function allowed()
  local setting = said.concurrency
  if state.allowed > 0 and (setting == 0 or state.allowed < setting) then return state.allowed end
  if setting > 0 then return setting end
end

local function in_flight() return redis.call('ZCARD', LEASES) end

-- How many replicas have somebody waiting, those included that were given something just now.
local function lines()
  local count, seen = 0, {}
  for _, tickets in ipairs({redis.call('ZRANGE', WAITING, 0, -1), {holder, said.ticket}, given}) do
    for _, ticket in ipairs(tickets) do
      local replica = string.match(ticket, '^[^:]+')
      if replica and not seen[replica] then
        seen[replica], count = true, count + 1
      end
    end
  end
  return count
end

local function told(slot, ends, recheck)
  local done = redis.call('TIME')
  return {
    now, done[1] * 1000000 + done[2], state.epoch, holder == '' and state.next or state.slot + said.interval,
    state.pause, in_flight(), allowed() or -1, redis.call('ZCOUNT', REPLICAS, now, '+inf'),
    lines(), slot or -1, ends or 0, recheck or 0, revision,
  }
end

-- Push a reply; how many it reached.
local function publish(channel, subject, reply)
  local words = {}
  for i, number in ipairs(reply) do words[i] = string.format('%.0f', number) end
  words[#words + 1] = subject
  return redis.call('PUBLISH', channel, table.concat(words, ' '))
end

local function tell_all() publish(said.channel .. 'all', STATE, told()) end

-- The number of this run of the server, and for how many seconds it has run.
local function server()
  local info = redis.pcall('INFO', 'server')
  info = type(info) == 'string' and info or '' -- who may not ask is told nothing, and takes it for a young one
  local run, uptime = string.match(info, 'run_id:(%x+)'), string.match(info, 'uptime_in_seconds:(%d+)')
  return tonumber(string.sub(run or '0', 1, 12), 16), tonumber(uptime or 0)
end

-- From here on nothing is given out for a while: whoever holds leases tells of them first.
local function settle()
  state.epoch, state.opens = now, now + said.settle
  tell_all()
end

-- Nothing is known, or it comes from an earlier run of the server, or from another server, and the newest may be lost.
-- With nothing known, perhaps nobody has used this account of late: but a replica that knew an epoch says so, and a
-- server that has just started is suspect too. Connections are opened anew unseen, so every operation looks.
local function compare()
  local run, uptime = server()
  local is_lost = state.server ~= run
  if state.epoch == 0 then
    state.epoch = now
    is_lost = said.epoch > 0 or uptime < YOUNG
  elseif now < state.at - SET_BACK then -- instants of a clock that was set back mean nothing: as good as lost
    redis.call('DEL', LEASES, WAITING, REPLICAS)
    holder, state.next, state.pause, state.cut_at, is_lost = '', 0, 0, 0, true
  elseif now > state.at + said.alive / 2 and redis.call('ZCOUNT', LEASES, '-inf', now) > 0 then
    is_lost = true
  end
  state.server, state.at = run, now
  if is_lost then settle() end
end

local function lease(ticket)
  redis.call('ZADD', LEASES, now + said.lease, ticket)
  live(LEASES)
end

-- Whether the next pace slot may be given.
local function is_pace_free()
  if holder == '' then return true end
  if now < state.slot and not redis.call('ZSCORE', LEASES, holder) then
    holder = '' -- its lease is over, and it was not sent
  elseif now > state.ends then
    state.next, holder = math.max(state.next, state.ends + said.interval), ''
  end
  return holder == ''
end

-- The pace is this ticket's: from when until when it may be sent; 0, 0 for any time.
local function take_pace(ticket)
  if said.interval == 0 then return 0, 0 end
  local lead, window = said.lead, said.window
  if ticket ~= said.ticket then
    lead, window = string.match(ticket, ':(%d+):(%d+)$')
  end
  holder, state.slot = ticket, math.max(now + lead, state.next, state.pause, state.opens)
  state.ends = state.slot + window
  return state.slot, state.ends
end

local function leave_pace(ticket)
  if holder == ticket then holder = '' end
end

-- Give out what is free, in turn. What is given to `mine` is returned, to others it is pushed; whoever cannot be
-- reached, since its replica died or is connecting anew, has lost its turn.
local function serve(mine)
  local slot, ends
  redis.call('ZREMRANGEBYSCORE', LEASES, '-inf', now)
  while now >= state.opens and not is_held do
    local first = redis.call('ZRANGE', WAITING, 0, 0)[1]
    if not first or not is_pace_free() then break end
    local has_lease = redis.call('ZSCORE', LEASES, first)
    if not has_lease and in_flight() >= (allowed() or math.huge) then break end
    redis.call('ZREM', WAITING, first)
    lease(first)
    given[#given + 1] = first
    local its, till = take_pace(first)
    if first == mine then
      slot, ends = its, till
    elseif publish(said.channel .. string.match(first, '^[^-]*'), first, told(its, till)) == 0 then
      redis.call('ZREM', LEASES, first)
      leave_pace(first)
    end
  end
  return slot, ends
end

-- When `ticket` should ask again if nothing was pushed to it until then: when what it waits for ends by itself. Those
-- behind the first ask later, for its question brings them what they wait for.
local function recheck(ticket)
  local behind = redis.call('ZRANK', WAITING, ticket)
  local turn = said.interval + said.window
  if is_held then return now + 1000 * said.life end -- whoever resumes it tells all
  if now < state.opens then return state.opens + behind * turn end
  local soonest = redis.call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')[2] or now
  if holder == '' then return soonest + behind * GRAIN end
  return math.min(state.ends, soonest) + behind * turn
end

local function succeeded()
  local setting = said.concurrency
  state.strikes = 0
  if state.allowed == 0 then return end
  state.successes = state.successes + 1
  local is_below = state.failed_at == 0 or state.allowed + 1 < state.failed_at
  if state.successes < (is_below and FIRST_RUN or state.run) then return end
  if state.failed_at > 0 and state.allowed >= state.failed_at then
    state.failed_at, state.run = 0, FIRST_RUN
  end
  state.allowed, state.successes = state.allowed + 1, 0
  if setting > 0 and state.allowed >= setting then state.allowed = 0 end
end

-- Halve, unless this 429 answers a call of the burst that was cut already. True if it was news.
local function cut(sent)
  if sent > 0 and sent <= state.cut_at then return false end
  local level = allowed() or in_flight()
  state.run = level == state.failed_at and math.min(MAX_RUN, state.run * 2) or FIRST_RUN
  state.failed_at = level
  state.allowed = math.max(1, math.floor(level / 2))
  state.successes, state.cut_at = 0, now
  return true
end

local function pause(length) state.pause = math.max(state.pause, now + length) end

local operations = {}

-- A lease and a pace slot for `ticket`, or its place among those who wait. One that has its lease goes first: it
-- missed its slot, or is sent once more, and those who wait may wait for its lease.
local function ask(ticket)
  local has_lease = redis.call('ZSCORE', LEASES, ticket)
  if has_lease and not is_held and (said.interval == 0 or holder == ticket) then
    lease(ticket)
    return told(take_pace(ticket))
  end
  if not redis.call('ZSCORE', WAITING, ticket) then
    state.turn = state.turn + 1
    redis.call('ZADD', WAITING, has_lease and 0 or state.turn, ticket)
    live(WAITING)
  end
  local slot, ends = serve(ticket)
  if slot then return told(slot, ends) end
  return told(has_lease and HAS_LEASE or -1, 0, recheck(ticket))
end

-- What happened: {ticket, when it was sent}, tickets that are over, how many answers were good; and what is asked for.
function operations.tell()
  for _, sent in ipairs(said.sent) do
    state.next = math.max(state.next, sent[2] + said.interval)
    leave_pace(sent[1])
  end
  for _, ticket in ipairs(said.over) do
    redis.call('ZREM', LEASES, ticket)
    redis.call('ZREM', WAITING, ticket)
    leave_pace(ticket)
  end
  for _ = 1, said.successes do succeeded() end
  if said.ticket then return ask(said.ticket) end
  serve()
  return told()
end

-- Forget of this replica what it does not know of, up to its newest ticket: old data may have come back.
local function forget(key, known)
  for _, ticket in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    local replica, number = string.match(ticket, '^([^:]*):(%d+):')
    if replica == said.replica and tonumber(number) <= said.newest and not known[ticket] then
      redis.call('ZREM', key, ticket)
      leave_pace(ticket)
    end
  end
end

-- The next send keeps its distance from the last one by the new interval. Who holds the pace goes on holding it: it
-- is told, and asks for a slot again, or has been sent.
local function repace(interval)
  if interval == said.interval then return end
  if said.interval == 0 then
    holder, state.next = '', 0
  elseif interval == 0 then
    state.next = now + said.interval -- nobody has said when the last one was
  elseif state.next > 0 then
    state.next = state.next - interval + said.interval
  end
end

-- Fields of the overrides: {name, value}, false for none. They make a revision that nobody has seen yet.
local function set(fields, number)
  local interval = said.interval
  for _, field in ipairs(fields) do
    if field[2] then
      redis.call('HSET', OVERRIDES, field[1], field[2])
    else
      redis.call('HDEL', OVERRIDES, field[1])
    end
  end
  redis.call('HSET', OVERRIDES, 'revision', string.format('%.0f', number))
  obey()
  repace(interval)
  tell_all()
end

-- Operators change something.
function operations.override()
  set(said.fields, math.max(now, revision + 1))
  serve()
  return told()
end

-- Leases of replicas that are not connected end soon, unless they are back by then and renew them: most are dead.
-- Returns when, nil if there are none.
local function abandon()
  local soon, is_connected, first = now + said.settle, {}, nil
  local leases = redis.call('ZRANGE', LEASES, 0, -1, 'WITHSCORES')
  for i = 1, #leases, 2 do
    local link, ends = string.match(leases[i], '^[^-]*'), tonumber(leases[i + 1])
    if is_connected[link] == nil then is_connected[link] = redis.call('PUBLISH', said.channel .. link, '') > 0 end
    if not is_connected[link] then
      if ends > soon then redis.call('ZADD', LEASES, soon, leases[i]) end
      first = math.min(first or soon, ends)
    end
  end
  return first
end

-- The replica is there, with all its calls in flight and all that it asks for. `recheck` is when to say so again, 0 for
-- its own time.
function operations.renew()
  local known = {}
  for _, ticket in ipairs(said.asking) do known[ticket] = true end
  for _, ticket in ipairs(said.held) do
    known[ticket] = true
    lease(ticket)
  end
  forget(LEASES, known)
  forget(WAITING, known)
  redis.call('ZREMRANGEBYSCORE', REPLICAS, '-inf', now)
  redis.call('ZADD', REPLICAS, now + said.alive, said.replica)
  live(REPLICAS)
  live(STATE)
  serve()
  return told(-1, 0, abandon())
end

-- The first word of a replica that has connected, or learned of a new epoch: that it is there, and what it knows.
function operations.restore()
  if said.revision > revision then
    redis.call('DEL', OVERRIDES)
    set(said.fields, said.revision)
  end
  state.next = math.max(state.next, said.next)
  if said.paused > 0 then
    pause(said.paused)
    tell_all()
  end
  return operations.renew()
end

-- The upstream answered 429: local.py's rules, for all replicas.
function operations.throttle()
  if said.sent == 0 and said.retry_after == 0 then
    pause(FIRST_BACKOFF)
  else
    local is_news = cut(said.sent)
    if said.retry_after > 0 then
      pause(math.min(said.retry_after, MAX_PAUSE))
    elseif is_news then
      pause(math.min(MAX_BACKOFF, FIRST_BACKOFF * 2 ^ state.strikes) * (0.5 + 0.5 * said.jitter))
      state.strikes = state.strikes + 1
    end
  end
  tell_all()
  return told()
end

-- The replica is leaving.
function operations.leave()
  redis.call('ZREM', REPLICAS, said.replica)
  return operations.tell()
end

-- Whether this server is of use: it can be written to, runs scripts, and tells whether a message reached anybody.
if said.op == 'probe' then
  redis.call('SET', KEYS[1], now, 'PX', said.life)
  return {now, redis.call('PUBLISH', said.channel .. said.replica, '')}
end

read()
obey()
compare()
local reply = operations[said.op]()
save()
return reply
