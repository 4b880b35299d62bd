-- For Orthanc's "LuaScripts": tells `python -m edge serve --http PORT` of each study that is complete.
-- Where serve cannot be reached, nothing is lost: it searches the archive too, unless its settings say "poll: 0".
--
-- ANOMED_SERVE: where serve listens; ANOMED_TOKEN: the token of its settings, if there is one.

local SERVE = os.getenv("ANOMED_SERVE") or "http://127.0.0.1:8077"
local TOKEN = os.getenv("ANOMED_TOKEN")

function OnStableStudy(studyId, tags, metadata)
   local headers = { ["Content-Type"] = "application/json" }
   if TOKEN then
      headers["Authorization"] = "Bearer " .. TOKEN
   end
   local body = DumpJson({ StudyInstanceUID = tags["StudyInstanceUID"] }, true)
   pcall(function() HttpPost(SERVE .. "/studies", body, headers) end)
end
