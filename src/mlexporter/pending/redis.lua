-- Joins predictions and labels, and gives up what is too old. A script runs alone: what another replica does comes
-- before it or after it, so that each match and each loss is told to one replica.
--
-- KEYS[1]  hash of all indexes, by their key: MessagePack of {kind, model, version or false, prefix of the model's keys}
-- KEYS[2]  the last answer to this caller, behind its token
-- ARGV     command, token of 16 bytes, seconds for which the answer is kept, MessagePack of what the command takes
--
-- Each id of a model has a hash at <prefix>id:<id>. Its values are a time (8 bytes) and JSON; its fields:
--   p<version>  a prediction
--   l<version>  the label that was counted for it
--   e<version>  a label that waits for the prediction of this version
--   c           a label for all versions, also those to come; it waits as long as there is no prediction
-- Indexes are sorted sets of ids by time: pending:<version> and joined:<version> of predictions without and with their
-- label, early:<version> and early of labels that wait.

local INDEXES = KEYS[1]

local function packed(time, value) return struct.pack('>d', time) .. value end
local function time_of(field) return (struct.unpack('>d', field)) end
local function value_of(field) return field:sub(9) end

local function index_key(prefix, kind, version)
  return prefix .. kind .. (version and (':' .. version) or '')
end

-- Fields of an id's hash by their kind: predictions, counted labels and early labels by version; the label for all.
local function read(key)
  local fields, all = { p = {}, l = {}, e = {} }, nil
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    if flat[i] == 'c' then
      all = flat[i + 1]
    else
      fields[flat[i]:sub(1, 1)][flat[i]:sub(2)] = flat[i + 1]
    end
  end
  return fields.p, fields.l, fields.e, all
end

local function counts(by_key)
  local list = {}
  for _, entry in pairs(by_key) do list[#list + 1] = entry end
  return list
end

local commands = {}

-- models: by name {prefix of its keys, seconds to live}; predictions, labels: {model, version, id, time, value}
function commands.apply(models, predictions, labels)
  local matches, pairs_, tracked, repeated, touched = {}, {}, {}, {}, {}

  local function count(into, model, version)
    local key = #model .. ':' .. model .. version
    into[key] = into[key] or { model, version, 0 }
    into[key][3] = into[key][3] + 1
  end

  local function enter(kind, model, version, id, time)
    local key = index_key(models[model][1], kind, version)
    redis.call('ZADD', key, time, id)
    touched[key] = touched[key] or { kind, model, version or false, models[model][1] }
  end

  local function leave(kind, model, version, id)
    redis.call('ZREM', index_key(models[model][1], kind, version), id)
  end

  local function match(model, version, prediction, label, before)
    local told = { model, version, value_of(prediction), time_of(prediction), value_of(label), time_of(label) }
    if before then told[7], told[8] = value_of(before), time_of(before) end
    matches[#matches + 1] = told
  end

  local function pair(model, a, b, of, label)
    pairs_[#pairs_ + 1] = { model, a, b, value_of(of[a]), value_of(of[b]), label and value_of(label) }
  end

  -- The first label of a prediction.
  local function join(model, version, id, key, label, of, known)
    match(model, version, of[version], label)
    redis.call('HSET', key, 'l' .. version, label)
    known[version] = label
    enter('joined', model, version, id, time_of(of[version]))
  end

  local function predict(model, version, id, time, value)
    local prefix, ttl = models[model][1], models[model][2]
    local key = prefix .. 'id:' .. id
    if redis.call('HSETNX', key, 'p' .. version, packed(time, value)) == 0 then return end
    redis.call('EXPIRE', key, ttl)
    count(tracked, model, version)
    if redis.call('HLEN', key) == 1 then return enter('pending', model, version, id, time) end

    local of, known, early, all = read(key)
    if all then leave('early', model, nil, id) end
    -- A label for all versions does away with those that wait: one that waits now came later.
    local label = early[version] or all
    if early[version] then
      redis.call('HDEL', key, 'e' .. version)
      leave('early', model, version, id)
    end
    if label then join(model, version, id, key, label, of, known) else enter('pending', model, version, id, time) end
    for other in pairs(of) do
      if other ~= version then
        pair(model, other, version, of)
        if label or known[other] then pair(model, other, version, of, label or known[other]) end
      end
    end
  end

  local function tell(model, version, id, key, label, of, known)
    local before = known[version]
    if not before then
      leave('pending', model, version, id)
      join(model, version, id, key, label, of, known)
      -- With a version that has its label, the pair was told with that.
      for other in pairs(of) do
        if not known[other] then pair(model, other, version, of, label) end
      end
    elseif value_of(before) == value_of(label) then
      count(repeated, model, version)
    else
      match(model, version, of[version], label, before)
      redis.call('HSET', key, 'l' .. version, label)
    end
  end

  local function wait(model, version, id, key, field, label, time)
    redis.call('HSET', key, field, label)
    redis.call('EXPIRE', key, models[model][2])
    enter('early', model, version, id, time)
  end

  local function differs(waiting, value) return not waiting or value_of(waiting) ~= value end

  local function learn(model, version, id, time, value)
    local key, label = models[model][1] .. 'id:' .. id, packed(time, value)
    local of, known, early, all = read(key)
    if version then
      if of[version] then
        tell(model, version, id, key, label, of, known)
      elseif differs(early[version], value) then
        wait(model, version, id, key, 'e' .. version, label, time)
      end
      return
    end
    for each in pairs(of) do tell(model, each, id, key, label, of, known) end
    for each in pairs(early) do
      redis.call('HDEL', key, 'e' .. each)
      leave('early', model, each, id)
    end
    if differs(all, value) then
      if next(of) then redis.call('HSET', key, 'c', label) else wait(model, nil, id, key, 'c', label, time) end
    end
  end

  for _, row in ipairs(predictions) do predict(unpack(row, 1, 5)) end
  for _, row in ipairs(labels) do learn(unpack(row, 1, 5)) end

  for key, index in pairs(touched) do
    local ttl = models[index[2]][2]
    redis.call('EXPIRE', key, ttl)
    redis.call('HSET', INDEXES, key, cmsgpack.pack(index))
    if redis.call('TTL', INDEXES) < ttl then redis.call('EXPIRE', INDEXES, ttl) end
  end
  return { counts(tracked), matches, pairs_, counts(repeated) }
end

local function indexes()
  local list = {}
  local flat = redis.call('HGETALL', INDEXES)
  for i = 1, #flat, 2 do
    local kind, model, version, prefix = unpack(cmsgpack.unpack(flat[i + 1]))
    local size = redis.call('ZCARD', flat[i])
    list[#list + 1] = { key = flat[i], kind = kind, model = model, version = version, prefix = prefix, size = size }
  end
  return list
end

local function drop(index, id)
  local key = index.prefix .. 'id:' .. id
  redis.call('ZREM', index.key, id)
  if index.kind == 'early' then
    redis.call('HDEL', key, index.version and ('e' .. index.version) or 'c')
  elseif redis.call('HDEL', key, 'p' .. index.version, 'l' .. index.version) > 0 and not next((read(key))) then
    redis.call('HDEL', key, 'c')
  end
end

-- Up to n of the oldest rows of one kind: {index, id, time}.
local function oldest(list, kind, n)
  local rows = {}
  for _, index in ipairs(list) do
    local flat = index.kind == kind and redis.call('ZRANGE', index.key, 0, n - 1, 'WITHSCORES') or {}
    for i = 1, #flat, 2 do rows[#rows + 1] = { index, flat[i], tonumber(flat[i + 1]) } end
  end
  table.sort(rows, function(a, b) return a[3] < b[3] end)
  for i = #rows, n + 1, -1 do rows[i] = nil end
  return rows
end

-- One step: up to `step` rows beyond their time; where there are none, up to `step` of the oldest beyond the limit.
-- cutoffs: by model, where the times to be given up end, of predictions and of labels that wait
-- limit: of predictions, and of labels that wait
function commands.forget(cutoffs, limit, step)
  local reason, old, list, rows = 'horizon', {}, indexes(), { pending = 0, joined = 0, early = 0 }
  for _, index in ipairs(list) do
    rows[index.kind] = rows[index.kind] + index.size
    if index.size == 0 then redis.call('HDEL', INDEXES, index.key) end
    local cutoff = cutoffs[index.model]
    if cutoff and #old < step then
      local last = index.kind == 'early' and cutoff[2] or cutoff[1]
      for _, id in ipairs(redis.call('ZRANGEBYSCORE', index.key, '-inf', last, 'LIMIT', 0, step - #old)) do
        old[#old + 1] = { index, id }
      end
    end
  end
  if #old == 0 then
    reason = 'limit'
    local excess = rows.pending + rows.joined - limit
    if excess > 0 then
      -- Those with their label first: one without may still get it.
      old = oldest(list, rows.joined > 0 and 'joined' or 'pending', math.min(excess, step))
    elseif rows.early > limit then
      old = oldest(list, 'early', math.min(rows.early - limit, step))
    end
  end

  local lost = { pending = {}, early = {}, joined = {} }
  for _, each in ipairs(old) do
    local index = each[1]
    drop(index, each[2])
    local count = lost[index.kind]
    count[index.key] = count[index.key] or { index.model, index.version or '', 0 }
    count[index.key][3] = count[index.key][3] + 1
  end
  return { #old, reason, counts(lost.pending), counts(lost.early) }
end

function commands.waiting()
  local waiting = { pending = {}, early = {}, joined = {} }
  for _, index in ipairs(indexes()) do
    if index.size > 0 then waiting[index.kind][index.key] = { index.model, index.version or '', index.size } end
  end
  return { counts(waiting.pending), counts(waiting.early) }
end

local command, token, keep, argument = unpack(ARGV)
if command == 'waiting' then return cmsgpack.pack(commands.waiting()) end
-- Asked again because the answer did not arrive: give it again, and do nothing.
local kept = redis.call('GET', KEYS[2])
if kept and kept:sub(1, #token) == token then return kept:sub(#token + 1) end
local answer = cmsgpack.pack(commands[command](unpack(cmsgpack.unpack(argument))))
redis.call('SET', KEYS[2], token .. answer, 'EX', keep)
return answer
