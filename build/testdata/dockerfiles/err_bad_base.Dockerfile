FROM Not/A/Good:REF:x
