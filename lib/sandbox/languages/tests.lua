-- Runs the tests of a function task in Lua. What the tests and this file use is bound before the program is loaded, in
-- tables that the program never sees; what it defines lives in an environment of its own. The mark comes on stdin, once.
local mark = io.read("l")
local function take(name)
  local file = io.open(name, "r")
  local text = file and file:read("a")
  if file then file:close() end
  os.remove(name)
  return text and text:gsub("^#[^\n]*", "")
end
local readings, tests = { take("program.lua"), take("other.lua") }, take("given.lua")
os.remove("main.lua")

local error, exit, load, next, pcall, rawequal, rawget, select = error, os.exit, load, next, pcall, rawequal, rawget, select
local setmetatable, tostring, type, abs, find, format, sub, lower = setmetatable, tostring, type, math.abs, string.find, string.format, string.sub, string.lower
local concat, sort, open, stdout, stderr, write, read, close = table.concat, table.sort, io.open, io.stdout, io.stderr, io.stdout.write, io.stdout.read, io.stdout.close

local function finish() write(stdout, "\n", mark, "\n") exit(0) end
local function fail(message) write(stderr, tostring(message), "\n") exit(1) end

-- A table of globals like the one every program finds, without ways to look into other functions.
local function globals()
  local env = {}
  for name, value in next, _G do
    if type(value) ~= "table" then
      env[name] = value
    elseif name ~= "_G" and name ~= "package" and name ~= "debug" then
      env[name] = {}
      for key, item in next, value do env[name][key] = item end
    end
  end
  env._G, env.debug = env, { traceback = debug.traceback }
  function env.load(chunk, name, mode, ...)
    if select("#", ...) == 0 then return load(chunk, name, mode, env) end
    return load(chunk, name, mode, ...)
  end
  function env.loadfile(name, mode, ...)
    local file, why = open(name, "r")
    if not file then return nil, why end
    local text = read(file, "a")
    close(file)
    return env.load(text, "@" .. name, mode, ...)
  end
  function env.dofile(name)
    local chunk, why = env.loadfile(name)
    if not chunk then error(why, 2) end
    return chunk()
  end
  function env.require(name)
    if type(rawget(env, name)) ~= "table" then error("module '" .. tostring(name) .. "' not found", 2) end
    return rawget(env, name)
  end
  return env
end

local own, theirs = globals(), globals()
local method, added = own.string, theirs.string
local strings = getmetatable("")
strings.__index = function(_, key)
  local found = rawget(method, key)
  if found == nil then return rawget(added, key) end
  return found
end
strings.__metatable = false
local global = _G
for name in next, global do global[name] = nil end

-- ------------------------------------------------------------------------------------------------------- luaunit

local function show(value, depth)
  if type(value) == "string" then return format("%q", value) end
  if type(value) ~= "table" then return type(value) == "number" and format("%.14g", value) or type(value) == "boolean" and (value and "true" or "false") or type(value) end
  if (depth or 0) > 4 then return "{...}" end
  local parts = {}
  for key, item in next, value do parts[#parts + 1] = "[" .. show(key, (depth or 0) + 1) .. "]=" .. show(item, (depth or 0) + 1) end
  return "{" .. concat(parts, ", ") .. "}"
end

local function same(a, b)
  if rawequal(a, b) then return true end
  if type(a) ~= "table" or type(b) ~= "table" then return false end
  for key, item in next, b do if not same(rawget(a, key), item) then return false end end
  for key in next, a do if rawget(b, key) == nil then return false end end
  return true
end

local lu = { LuaUnit = {} }
local function check(ok, got, expected)
  if not ok then error("got " .. show(got) .. ", expected " .. expected, 3) end
end
function lu.assertEquals(got, expected) check(same(got, expected), got, show(expected)) end
function lu.assertNotEquals(got, other) check(not same(got, other), got, "another value") end
function lu.assertTrue(value) check(rawequal(value, true), value, "true") end
function lu.assertFalse(value) check(rawequal(value, false), value, "false") end
function lu.assertNil(value) check(rawequal(value, nil), value, "nil") end
function lu.assertNotNil(value) check(not rawequal(value, nil), value, "something") end
function lu.assertAlmostEquals(got, expected, margin)
  check(type(got) == "number" and abs(got - expected) <= (margin or 1e-9), got, show(expected))
end
function lu.assertStrContains(got, part) check(type(got) == "string" and find(got, part, 1, true), got, "a text with " .. show(part)) end
function lu.assertError(call, ...) check(not pcall(call, ...), "no error", "an error") end
function lu.assertItemsEquals(got, expected)
  check(type(got) == "table" and #got == #expected, got, show(expected))
  local left = {}
  for position = 1, #got do left[position] = rawget(got, position) end
  for _, item in next, expected do
    local found
    for position, other in next, left do if same(other, item) then found = position break end end
    check(found, got, show(expected))
    left[found] = nil
  end
end
lu.assertAlmostEqual, lu.assertIsTrue, lu.assertIsFalse, lu.assertIsNil = lu.assertAlmostEquals, lu.assertTrue, lu.assertFalse, lu.assertNil

local asked, ran
function lu.LuaUnit.run()
  ran = true
  local names = {}
  for name, test in next, own do
    if type(name) == "string" and type(test) == "function" and lower(sub(name, 1, 4)) == "test" then names[#names + 1] = name end
  end
  sort(names)
  for _, name in next, names do
    local ok, message = pcall(own[name])
    if not ok then fail(message) end
  end
  return 0
end

-- ------------------------------------------------------------------------------------------- the program, the tests

local entry, program, why = "@ENTRY@"
for _, text in next, readings do
  local last = entry ~= "" and text .. "\nreturn " .. entry
  program, why = load(last or text, "@program.lua", "t", theirs)
  if not program and last then program = load(text, "@program.lua", "t", theirs) end
  if program then break end
end
if not program then fail(why) end
local ok, given = pcall(program)
if not ok then fail(given) end
if type(given) ~= "function" and rawget(theirs, entry) ~= nil then given = rawget(theirs, entry) end

function own.require(name)
  if name == "luaunit" then asked = true return lu end
  return rawget(own, name)
end
function own.os.exit(code)
  if code == nil or code == true or code == 0 then finish() end
  fail("the tests ended with " .. tostring(code))
end
setmetatable(own, { __index = function(_, name) return rawget(theirs, name) end })
if entry ~= "" then own[entry] = given end
local chunk, wrong = load(tests, "@tests.lua", "t", own)
if not chunk then fail(wrong) end
local held, message = pcall(chunk)
if not held then fail(message) end
if asked and not ran then lu.LuaUnit.run() end
finish()
