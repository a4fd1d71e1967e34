module tiphys.test/pause

go 1.25.0
