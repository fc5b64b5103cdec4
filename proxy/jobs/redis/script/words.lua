-- What replicas and Redis say to each other about jobs, files and batches: one operation, atomic. The parts of this
-- script are put together in the order of link.py.
--
-- Rule 1: the clock is this server's; nobody else's counts for leases, deadlines and ends.
-- Rule 2: what is refused is refused before anything is written.
-- Rule 3: every operation may be said twice, for its first answer may be lost; what was done already is not done again.
--
-- KEYS[1]   the line. All keys share its hash tag, so that one node of a cluster has them: the others are named here
-- ARGV[1]   what is said, as JSON: `op`, `prefix` and the operation's own words
-- ARGV[2..] bytes that belong to it
--
-- | key                      | what                                                                       |
-- |--------------------------|----------------------------------------------------------------------------|
-- | line                     | sorted set: id of a claimable job -> its rank and turn                     |
-- | later, leases, ends      | sorted sets: id -> when it may be claimed, its lease ends, it is forgotten |
-- | deadlines                | sorted set: id of a queued job -> until when it may begin                  |
-- | turns                    | hash: rank -> the last turn claimed                                        |
-- | flow:<rank>:<caller>     | sorted set: id of a queued job of this caller -> its turn                  |
-- | heard                    | when whoever runs jobs was last heard, in microseconds                     |
-- | total                    | hash: seq (the last one given), jobs, bytes                                |
-- | job:<id>                 | hash: a job's fields, body and answer                                      |
-- | key:<caller>:<key>       | the id of the job with this Idempotency-Key                                |
-- | jobs, jobs:<caller>      | sorted sets: id of a job of no batch -> its seq                            |
-- | lines:<batch>            | sorted set: id of a job of this batch -> its seq                           |
-- | files, files:<caller>, file_ends, file:<id>        | likewise, and a file's fields                    |
-- | parts:<id>               | list: the bytes of a file, or of an upload: one that is not whole yet      |
-- | uploads, upload_ends     | hash: upload -> its bytes; sorted set: upload -> when it is given up       |
-- | batches, batches:<caller>, batch_ends, batch:<id>  | likewise, and a batch's fields                   |

local said = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
-- Jobs that one operation moves, and entries of a list that one looks at.
local SLICE, SCANNED = 200, 2000
-- Bytes that a job or a batch takes besides its body, roughly.
local OVERHEAD = 1024

local operations, topics = {}, {}

local function tell(...)
  for _, topic in ipairs({...}) do
    if topic then topics[#topics + 1] = topic end
  end
end

local function key(kind, name) return said.prefix .. kind .. (name and ':' .. name or '') end

local LINE, LATER, LEASES, ENDS, DEADLINES = KEYS[1], key('later'), key('leases'), key('ends'), key('deadlines')
local TURNS, TOTAL, HEARD = key('turns'), key('total'), key('heard')

local function time(seconds) return string.format('%.6f', seconds) end

local function whole(number) return string.format('%.0f', number) end

-- The number in a field, nil if it is not there.
local function number(field) return tonumber(field or '') end

-- Some fields of a hash by their names; false for what is not there.
local function fields(of, ...)
  local told, names = {}, {...}
  for i, value in ipairs(redis.call('HMGET', of, ...)) do told[names[i]] = value end
  return told
end

local function add_total(name, by) return redis.call('HINCRBY', TOTAL, name, by) end

-- Whether the store takes so many more.
local function has_room(jobs, bytes)
  local total = fields(TOTAL, 'jobs', 'bytes')
  return (number(total.jobs) or 0) + jobs <= said.room_jobs and (number(total.bytes) or 0) + bytes <= said.room_bytes
end

local function full() return redis.error_reply('FULL') end

-- Some members of a sorted set whose time has come.
local function due(place) return redis.call('ZRANGEBYSCORE', place, '-inf', time(now), 'LIMIT', 0, SLICE) end

-- Whether an entry is there, has not expired, and is this caller's if one is named.
local function is_found(entry, caller)
  local told = fields(entry, 'caller', 'expires_at')
  local expires = number(told.expires_at)
  return told.caller and (not caller or told.caller == caller) and not (expires and expires <= now)
end
