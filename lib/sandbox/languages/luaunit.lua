-- The part of the luaunit interface that function tests call, so that Lua tasks need no package.
local lu = { LuaUnit = {} }

local function show(value)
  if type(value) ~= "table" then return type(value) == "string" and string.format("%q", value) or tostring(value) end
  local parts = {}
  for key, item in pairs(value) do parts[#parts + 1] = "[" .. show(key) .. "]=" .. show(item) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function same(a, b)
  if rawequal(a, b) or a == b then return true end
  if type(a) ~= "table" or type(b) ~= "table" then return false end
  for key, item in pairs(a) do if not same(item, b[key]) then return false end end
  for key in pairs(b) do if a[key] == nil then return false end end
  return true
end

function lu.assertEquals(got, expected)
  if not same(got, expected) then error("got " .. show(got) .. ", expected " .. show(expected), 2) end
end

function lu.assertTrue(value) lu.assertEquals(value, true) end
function lu.assertFalse(value) lu.assertEquals(value, false) end
function lu.assertNil(value) lu.assertEquals(value, nil) end

function lu.assertAlmostEquals(got, expected, margin)
  if math.abs(got - expected) > (margin or 1e-9) then error("got " .. show(got) .. ", expected " .. show(expected), 2) end
end

function lu.LuaUnit.run()
  for name, test in pairs(_G) do
    if type(name) == "string" and type(test) == "function" and name:lower():sub(1, 4) == "test" then
      local ok, message = pcall(test)
      if not ok then
        io.stderr:write(tostring(message), "\n")
        return 1
      end
    end
  end
  io.write("\n@MARK@\n")
  return 0
end

return lu
