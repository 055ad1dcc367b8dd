"""What a person looks at afterwards: plots, videos and the report, each made of plain numbers and pictures."""
