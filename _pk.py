from benchmarks.sft import *
quiet()
for budget,th in ((512,0),(1024,0),(2048,0),(1024,16),(2048,16)):
        for f in packing(f"{budget} {th}",budget,thoughts=th): print(f.name,f.value)
