"""Lines of the logs of real jobs that failed."""

NCCL = (
    "[rank1]:[E626 06:24:44.903881913 ProcessGroupNCCL.cpp:616] [Rank 1] Watchdog caught collective"
    " operation timeout: WorkNCCL(SeqNum=808, OpType=ALLREDUCE, NumelIn=9801523, NumelOut=9801523,"
    " Timeout(ms)=600000) ran for 600020 milliseconds before timing out."
)
